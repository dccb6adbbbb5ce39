//! Shows facts and plan, to people as lines and to programs as JSON.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::facts::Facts;
use crate::plan::{Plan, word};

/// Both as one JSON object.
pub(crate) fn json(facts: &Facts, plan: &Plan) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        facts: &'a Facts,
        plan: &'a Plan,
    }
    serde_json::to_string_pretty(&Report { facts, plan })
}

/// Both as lines of text.
pub(crate) fn text(facts: &Facts, plan: &Plan) -> String {
    let config = &plan.engine;
    let node = &config.node;
    let certificate = config.tls.certificate_file.as_ref().map(|path| path.display().to_string());
    let https = |address: &dyn std::fmt::Display| {
        if certificate.is_some() { address.to_string() } else { "no certificate in [tls]".to_owned() }
    };
    let webrtc = match config.webrtc.port {
        0 => "any free ports, udp".to_owned(),
        port => format!("{port} and up, udp"),
    };
    let sections: [(&str, Vec<(&str, String)>); 2] = [
        ("facts", vec![("host name", or_none(&facts.host_name)), ("addresses", list(&facts.addresses))]),
        (
            "plan",
            vec![
                ("role", format!("{} ({})", word(node.role), plan.role_from)),
                ("node", format!("{} ({})", node.id, plan.id_from)),
                ("addresses", list(&plan.addresses)),
                ("data folder", node.data_dir.display().to_string()),
                ("http", config.http.listen.to_string()),
                ("https", https(&config.http.tls_listen)),
                ("rtmp", config.rtmp.listen.to_string()),
                ("rtmps", https(&config.rtmp.tls_listen)),
                ("webrtc", webrtc),
                ("health", config.health.listen.to_string()),
            ],
        ),
    ];
    let mut out = String::new();
    for (title, rows) in sections {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{title}");
        for (name, value) in rows {
            let _ = writeln!(out, "  {name:<12} {value}");
        }
    }
    out
}

fn list(addresses: &[IpAddr]) -> String {
    or_none(&addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}
