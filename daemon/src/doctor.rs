//! `headwaterd doctor`: every check of a troubleshooting guide, one file each, in the order in which one fault causes the next.
//!
//! A check asks and judges; it changes nothing but the registry's probe document. It says what is wrong and what to do about it, in
//! one sentence each. It may be run beside a running node or without one.

mod certificate;
mod clock;
mod metadata;
mod mongod;
mod origin;
mod ports;
mod registry;
mod role;
mod storage;
mod stream;
mod tags;

use std::fmt::Write as _;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::endpoints::{self, Endpoints};
use headwater_api::error::Chain;
use serde::Serialize;

use crate::plan;
use crate::settings::Settings;
use crate::{decide, reach};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// As it should be.
    Ok,
    /// It works, but not as it should, or not for long.
    Warn,
    /// Something does not work.
    Fail,
    /// There is nothing to check here.
    Skip,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Its name, stable.
    pub check: &'static str,
    /// How it came out.
    pub mark: Mark,
    /// What is the case.
    pub what: String,
    /// What to do about it; empty if nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub todo: String,
}

impl Finding {
    fn new(check: &'static str, mark: Mark, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, mark, what: what.into(), todo: todo.into() }
    }

    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Mark::Ok, what, "")
    }

    fn warn(check: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Mark::Warn, what, todo)
    }

    fn fail(check: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Mark::Fail, what, todo)
    }

    fn skip(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Mark::Skip, what, "")
    }
}

/// Runs all checks.
pub(crate) async fn examine(settings: &Settings, stream: Option<&StreamName>) -> Vec<Finding> {
    let facts = decide::fetch_facts(settings).await.map(|(facts, _)| facts);
    let mut findings = vec![metadata::check(facts.as_ref().map_err(|e| Chain(e).to_string()))];
    // Without metadata the rest is still worth a look: the file may say it all.
    let facts = facts.unwrap_or_default();
    findings.push(tags::check(facts.instance.as_ref()));
    let planned = plan::plan(&facts, settings);
    findings.push(role::check(planned.as_ref()));
    let plan = planned.ok();
    let engine = read_engine(plan.as_ref().map_or(&settings.config, |plan| &plan.engine));
    let opened = match &plan {
        Some(plan) => Some(reach::open(plan).await),
        None => None,
    };
    findings.push(mongod::check(plan.as_ref()).await);
    let (registry, registry_clock) = registry::check(opened.as_ref()).await;
    let clock = clock::check(registry_clock, &registry.what);
    findings.push(registry);
    let store = opened.and_then(Result::ok);
    let config = plan.as_ref().map_or(&settings.config, |plan| &plan.engine);
    if plan.as_ref().is_some_and(|plan| plan.mongod.is_some()) {
        findings.push(clock);
        let of_engines = ["ports", "s3", "certificate", "stream", "relay"];
        findings.extend(of_engines.map(|check| Finding::skip(check, "a registry node runs no engine")));
        return findings;
    }
    findings.push(ports::check(config, engine.as_ref()).await);
    findings.push(clock);
    findings.push(storage::check());
    findings.push(certificate::check(&config.tls, clock::now_s()));
    findings.push(stream::check(stream, engine.as_ref(), store.as_ref()).await);
    findings.push(origin::check(config, engine.as_ref()).await);
    findings
}

/// Where the running engine says it listens. One that was killed may have left its file: ports tell.
fn read_engine(config: &headwater_api::Config) -> Option<Endpoints> {
    let path = config.node.data_dir.join(endpoints::FILE_NAME);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// True if nothing failed.
pub(crate) fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.mark != Mark::Fail)
}

/// As lines for people.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { check, mark, what, todo } in findings {
        let mark = match mark {
            Mark::Ok => "ok  ",
            Mark::Warn => "WARN",
            Mark::Fail => "FAIL",
            Mark::Skip => "-   ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark}  {check:<12} {what}");
        if !todo.is_empty() {
            let _ = writeln!(out, "{:20}do: {todo}", "");
        }
    }
    let count = |mark| findings.iter().filter(|finding| finding.mark == mark).count();
    let (failed, warned) = (count(Mark::Fail), count(Mark::Warn));
    let _ = writeln!(out, "\n{} checks: {failed} failed, {warned} with a warning", findings.len());
    out
}

/// For one answer of a running engine.
const PATIENCE: Duration = Duration::from_secs(5);

/// The plan of a machine without metadata, from the text of a file.
#[cfg(test)]
fn plan_of(text: &str) -> plan::Plan {
    plan::plan(&crate::facts::Facts::default(), &Settings::parse(text).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_remedy_and_a_warning_alone_is_no_failure() {
        let mut findings = vec![Finding::ok("role", "edge"), Finding::warn("clock", "1 s off", "look at chrony")];
        assert!(is_well(&findings));
        findings.push(Finding::fail("registry", "away", "start it"));
        assert!(!is_well(&findings));
        let text = text(&findings);
        for line in [
            "ok    role         edge",
            "FAIL  registry     away",
            "do: start it",
            "3 checks: 1 failed, 1 with a warning",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
