//! `headwaterd doctor`: runs every check of the troubleshooting guide, one file each, in the order
//! in which one fault causes the next.
//!
//! A check changes nothing but the registry's probe document. It reports the fault and the remedy
//! in one sentence each. It may run while a node runs or without one.

mod certificate;
mod clock;
mod metadata;
mod mongod;
mod origin;
mod ports;
mod registry;
mod role;
mod stream;
mod tags;

use std::fmt::Write as _;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_api::error::Chain;
use serde::Serialize;

use crate::boot::plan;
use crate::boot::planner;
use crate::boot::settings::Settings;
use crate::cluster::open_registry;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckStatus {
    /// Passed.
    Ok,
    /// It works, but not as it should, or not for long.
    Warn,
    /// A fault.
    Fail,
    /// Nothing to check here.
    Skip,
}

/// The finding of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable name of the check.
    pub check: &'static str,
    /// The result.
    #[serde(rename = "mark")]
    pub status: CheckStatus,
    /// What was found.
    #[serde(rename = "what")]
    pub message: String,
    /// The remedy; empty if none is needed.
    #[serde(rename = "todo", skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    fn new(check: &'static str, status: CheckStatus, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status, message: message.into(), remedy: remedy.into() }
    }

    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Ok, message, "")
    }

    fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Warn, message, remedy)
    }

    fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Fail, message, remedy)
    }

    fn skip(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Skip, message, "")
    }
}

/// Runs all checks.
pub(crate) async fn run_checks(settings: &Settings, stream: Option<&StreamName>) -> Vec<Finding> {
    let facts = planner::fetch_facts(settings).await.map(|(facts, _)| facts);
    let mut findings = vec![metadata::check(facts.as_ref().map_err(|e| Chain(e).to_string()))];
    // Without metadata the other checks are still useful: the file may set everything.
    let facts = facts.unwrap_or_default();
    findings.push(tags::check(facts.instance.as_ref()));
    let planned = plan::plan(&facts, settings);
    findings.push(role::check(planned.as_ref()));
    let plan = planned.ok();
    let engine = read_endpoints(plan.as_ref().map_or(&settings.config, |plan| &plan.engine));
    let opened = match &plan {
        Some(plan) => Some(open_registry::open(plan).await),
        None => None,
    };
    findings.push(mongod::check(plan.as_ref()).await);
    let (registry, registry_clock) = registry::check(opened.as_ref()).await;
    let clock = clock::check(registry_clock, &registry.message);
    findings.push(registry);
    let store = opened.and_then(Result::ok);
    let config = plan.as_ref().map_or(&settings.config, |plan| &plan.engine);
    if plan.as_ref().is_some_and(|plan| plan.mongod.is_some()) {
        findings.push(clock);
        let of_engines = ["ports", "certificate", "stream", "relay"];
        findings.extend(of_engines.map(|check| Finding::skip(check, "a registry node runs no engine")));
        return findings;
    }
    let self_signed = engine.as_ref().and_then(|engine| engine.self_signed_fingerprint.as_deref());
    findings.push(ports::check(config, engine.as_ref()).await);
    findings.push(clock);
    findings.push(certificate::check(&config.tls, self_signed, clock::now_s()));
    findings.push(stream::check(stream, engine.as_ref(), store.as_ref()).await);
    findings.push(origin::check(config, engine.as_ref()).await);
    findings
}

/// Reads the listeners of the running engine. A killed engine may have left its file behind; the
/// `ports` check detects that.
fn read_endpoints(config: &headwater_api::Config) -> Option<Endpoints> {
    let path = config.node.data_dir.join(ENDPOINTS_FILE);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// True if no check failed.
pub(crate) fn has_no_failure(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.status != CheckStatus::Fail)
}

/// Formats the findings as text.
pub(crate) fn to_text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { check, status, message, remedy } in findings {
        let status = match status {
            CheckStatus::Ok => "ok  ",
            CheckStatus::Warn => "WARN",
            CheckStatus::Fail => "FAIL",
            CheckStatus::Skip => "-   ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{status}  {check:<12} {message}");
        if !remedy.is_empty() {
            let _ = writeln!(out, "{:20}do: {remedy}", "");
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let (failed, warned) = (count(CheckStatus::Fail), count(CheckStatus::Warn));
    let _ = writeln!(out, "\n{} checks: {failed} failed, {warned} with a warning", findings.len());
    out
}

/// For one request to a running engine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the plan of a machine without metadata from the text of a configuration file.
#[cfg(test)]
fn plan_from(text: &str) -> plan::Plan {
    plan::plan(&crate::boot::facts::Facts::default(), &Settings::parse(text).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_printed_with_its_remedy_and_a_warning_is_no_failure() {
        let mut findings = vec![Finding::ok("role", "edge"), Finding::warn("clock", "1 s off", "look at chrony")];
        assert!(has_no_failure(&findings));
        findings.push(Finding::fail("registry", "unreachable", "start it"));
        assert!(!has_no_failure(&findings));
        let text = to_text(&findings);
        for line in [
            "ok    role         edge",
            "FAIL  registry     unreachable",
            "do: start it",
            "3 checks: 1 failed, 1 with a warning",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
