//! Decides what this node is: a pure function of facts and settings.
//!
//! Must not ask anybody anything. What the operator wrote wins over what the machine says.

use std::fmt;
use std::net::IpAddr;

use headwater_api::Config;
use headwater_api::config::Role;
use serde::Serialize;

use crate::facts::Facts;
use crate::settings::Settings;

/// What this node will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Where the role comes from; the role itself is in `engine`.
    pub role_from: Source,
    /// Where the name comes from; the name itself is in `engine`.
    pub id_from: Source,
    /// Addresses it registers with, public ones first.
    pub addresses: Vec<IpAddr>,
    /// What the engine is started with.
    pub engine: Config,
}

/// Who decided a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The configuration file.
    File,
    /// The host name.
    HostName,
    /// Nobody else did.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "configuration file",
            Self::HostName => "host name",
            Self::Default => "default",
        })
    }
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// A role that shares its registry, with a registry that cannot be shared.
    #[error("[node] role is {:?}, which wants a registry that nodes share; a node on its own is \"standalone\"", word(*role))]
    NoCluster {
        /// The role.
        role: Role,
    },
    /// The name would not fit into logs, URLs and file names.
    #[error("[node] id is {0:?}; 1 to {MAX_ID_BYTES} letters, digits, '-', '_' and '.' are allowed")]
    Id(String),
}

/// Bytes in a node's name at most.
const MAX_ID_BYTES: usize = 64;

/// Decides.
pub(crate) fn plan(facts: &Facts, settings: &Settings) -> Result<Plan, PlanError> {
    let mut engine = settings.config.clone();
    let role_from = if settings.says("node", "role") { Source::File } else { Source::Default };
    if engine.node.role != Role::Standalone {
        return Err(PlanError::NoCluster { role: engine.node.role });
    }
    let id_from = if settings.says("node", "id") {
        if engine.node.id.is_empty() || engine.node.id.len() > MAX_ID_BYTES || !engine.node.id.chars().all(legal) {
            return Err(PlanError::Id(engine.node.id));
        }
        Source::File
    } else if let Some(id) = id_of(&facts.host_name) {
        engine.node.id = id;
        Source::HostName
    } else {
        Source::Default
    };
    // Without addresses of its own the engine offers those of the interfaces, and follows them when they change.
    let addresses = match engine.node.addresses.as_slice() {
        [] => facts.addresses.clone(),
        written => written.to_vec(),
    };
    Ok(Plan { role_from, id_from, addresses, engine })
}

/// The role as tags and files spell it.
pub(crate) fn word(role: Role) -> &'static str {
    match role {
        Role::Origin => "origin",
        Role::Edge => "edge",
        Role::Standalone => "standalone",
    }
}

/// A name made of a host name, if anything of it can be used.
fn id_of(host_name: &str) -> Option<String> {
    let id: String = host_name.chars().map(|c| if legal(c) { c } else { '-' }).take(MAX_ID_BYTES).collect();
    Some(id).filter(|id| id.contains(|c: char| c.is_ascii_alphanumeric()))
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(host_name: &str) -> Facts {
        Facts { host_name: host_name.to_owned(), addresses: vec!["192.0.2.7".parse().unwrap()] }
    }

    fn planned(host_name: &str, file: &str) -> Result<Plan, PlanError> {
        plan(&facts(host_name), &Settings::parse(file).unwrap())
    }

    #[test]
    fn a_machine_on_its_own_is_standalone_and_named_after_its_host() {
        let check = |host: &str, file: &str, id: &str, from: Source| {
            let plan = planned(host, file).unwrap();
            assert_eq!((plan.engine.node.role, plan.role_from), (Role::Standalone, Source::Default));
            assert_eq!((plan.engine.node.id.as_str(), plan.id_from), (id, from), "{host:?} {file:?}");
        };
        check("studio-2", "", "studio-2", Source::HostName);
        check("studio 2/b", "", "studio-2-b", Source::HostName);
        check("studio", "node.id = 'left'", "left", Source::File);
        check("studio", "node.id = 'local'", "local", Source::File);
        check("", "", "local", Source::Default);
        check("--", "", "local", Source::Default);
        check(&"x".repeat(70), "", &"x".repeat(64), Source::HostName);
    }

    #[test]
    fn an_origin_or_edge_without_a_cluster_is_refused() {
        for role in [Role::Origin, Role::Edge] {
            let error = planned("a", &format!("node.role = '{}'", word(role))).unwrap_err();
            assert_eq!(error, PlanError::NoCluster { role });
        }
        assert_eq!(planned("a", "node.role = 'standalone'").unwrap().role_from, Source::File);
    }

    #[test]
    fn a_name_that_does_not_fit_everywhere_is_refused() {
        for id in ["", "a b", "../x", &"x".repeat(65)] {
            assert_eq!(planned("a", &format!("node.id = '{id}'")).unwrap_err(), PlanError::Id(id.to_owned()));
        }
    }

    #[test]
    fn written_addresses_win_and_are_handed_to_the_engine() {
        let plan = planned("a", "node.addresses = ['203.0.113.7']").unwrap();
        assert_eq!(plan.addresses, plan.engine.node.addresses);
        let plan = planned("a", "").unwrap();
        assert_eq!(plan.addresses, facts("a").addresses);
        assert!(plan.engine.node.addresses.is_empty());
    }

    #[test]
    fn what_the_file_says_reaches_the_engine() {
        let plan = planned("a", "hls.part_ms = 333").unwrap();
        assert_eq!(plan.engine.hls.part_ms.get(), 333);
    }
}
