//! `headwaterd plan`: prints facts and plan as text or JSON.

use std::fmt::Write as _;
use std::net::IpAddr;

use headwater_api::config::Listen;
use serde::Serialize;

use crate::boot::facts::{Facts, Tags};
use crate::boot::plan::Plan;
use crate::cluster::shared_registry::SharedRegistry;

/// The registry of a cluster, or why it is unavailable.
type RegistryResult = Result<SharedRegistry, String>;

/// Formats facts, plan and registry as one JSON object.
pub(crate) fn to_json(facts: &Facts, plan: &Plan, registry: Option<&RegistryResult>) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        facts: &'a Facts,
        plan: &'a Plan,
        registry: Option<&'a RegistryResult>,
    }
    serde_json::to_string_pretty(&Report { facts, plan, registry })
}

/// Formats facts, plan and registry as lines of text.
pub(crate) fn to_text(facts: &Facts, plan: &Plan, registry: Option<&RegistryResult>) -> String {
    let config = &plan.engine;
    let node = &config.node;
    let has_certificate = config.tls.certificate_file.is_some();
    let https = match config.http.tls_listen {
        Listen::At(address) if !has_certificate => format!("{address}, with a self-signed certificate"),
        listen => listen.to_string(),
    };
    let rtmps = match config.rtmp.tls_listen {
        Listen::At(_) if !has_certificate => "no certificate in [tls]".to_owned(),
        listen => listen.to_string(),
    };
    let webrtc = match config.webrtc.port {
        0 => "any free ports, udp".to_owned(),
        port => format!("{port} and up, udp"),
    };
    let mut fact_rows =
        vec![("host name", or_none(&facts.host_name)), ("interfaces", format_addresses(&facts.addresses))];
    match &facts.instance {
        None => fact_rows.push(("metadata", "none: not an EC2 instance".to_owned())),
        Some(instance) => fact_rows.extend([
            ("instance", format!("{} ({}, {})", instance.id, instance.instance_type, instance.zone)),
            ("image", or_none(&instance.image)),
            ("addresses", format_addresses(&instance.addresses)),
            ("tags", format_tags(&instance.tags)),
            ("auto scaling", or_none(instance.target_lifecycle_state.as_deref().unwrap_or_default())),
        ]),
    }
    let cluster = plan.cluster.as_ref().map_or("none", |cluster| cluster.name.as_str()).to_owned();
    let registry = match registry {
        None => "a file in the data folder".to_owned(),
        Some(Ok(found)) => format!("{}, password from secret {}", found.hosts.join(", "), found.secret),
        Some(Err(reason)) => format!("unavailable: {reason}"),
    };
    let mut plan_rows = vec![
        ("role", format!("{} ({})", node.role.as_str(), plan.role_from)),
        ("node", format!("{} ({})", node.id, plan.id_from)),
        ("cluster", cluster),
        ("registry", registry),
        ("addresses", format_addresses(&plan.addresses)),
        ("data folder", node.data_dir.display().to_string()),
    ];
    match (plan.mongod, &plan.cluster) {
        (Some(listen), Some(cluster)) => plan_rows.extend([
            ("mongod", format!("{} at {listen} and loopback", config.mongod.program.display())),
            ("replica set", cluster.replica_set()),
            ("health", config.health.listen.to_string()),
        ]),
        _ => plan_rows.extend([
            ("http", config.http.listen.to_string()),
            ("https", https),
            ("rtmp", config.rtmp.listen.to_string()),
            ("rtmps", rtmps),
            ("webrtc", webrtc),
            ("health", config.health.listen.to_string()),
        ]),
    }
    let sections = [("facts", fact_rows), ("plan", plan_rows)];
    let mut out = String::new();
    for (title, rows) in sections {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{title}");
        for (name, value) in rows {
            let _ = writeln!(out, "  {name:<13} {value}");
        }
    }
    out
}

fn format_tags(tags: &Tags) -> String {
    match tags {
        Tags::Metadata { tags } | Tags::Api { tags } => {
            or_none(&tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", "))
        }
        Tags::Hidden => "not shown by metadata".to_owned(),
        Tags::Unknown { reason } => format!("unknown: {reason}"),
    }
}

fn format_addresses(addresses: &[IpAddr]) -> String {
    or_none(&addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}
