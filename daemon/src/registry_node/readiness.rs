//! Whether a registry node is ready: the state that its tasks report, and the checks of `/readyz`
//! that follow from it. Performs no I/O and has no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::registry_node::reconciler::{DatabaseState, DatabaseStatus};

/// What the tasks of a registry node report, besides the [`DatabaseStatus`]. `Err` holds the
/// reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    /// True from the start of the drain.
    pub draining: bool,
    /// Whether the cluster's secrets were fetched.
    pub secrets: Result<(), String>,
    /// Whether a mongod process runs.
    pub mongod: Result<(), String>,
    /// Whether the registry lists this incarnation of the node.
    pub registered: Result<(), String>,
    /// The last write that reached the majority of the replica set, if any.
    pub last_write: Option<Instant>,
    /// Why later writes did not; `None` if the last one did.
    pub write_failure: Option<String>,
}

impl Default for NodeStatus {
    fn default() -> Self {
        Self {
            draining: false,
            secrets: Err("have not been fetched yet".to_owned()),
            mongod: Err("has not been started yet".to_owned()),
            registered: Err("this node is not registered yet".to_owned()),
            last_write: None,
            write_failure: None,
        }
    }
}

impl NodeStatus {
    /// A write has reached the majority.
    pub(crate) fn on_write(&mut self, now: Instant) {
        (self.registered, self.last_write, self.write_failure) = (Ok(()), Some(now), None);
    }

    fn majority(&self, now: Instant) -> Result<(), String> {
        match (&self.write_failure, self.last_write) {
            (Some(reason), _) => Err(reason.clone()),
            (None, None) => Err("no write has reached the majority of the replica set yet".to_owned()),
            (None, Some(at)) if now.saturating_duration_since(at) > MAX_WRITE_AGE => Err(format!(
                "no write has reached the majority of the replica set for {} s",
                now.saturating_duration_since(at).as_secs()
            )),
            (None, Some(_)) => Ok(()),
        }
    }
}

/// The body of `/readyz`, the same as the engine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Readiness {
    /// True if every check passes.
    pub ready: bool,
    /// The result of each check, by name: "ok" or the reason of the failure.
    pub checks: BTreeMap<&'static str, String>,
}

/// Evaluates the checks. `disk` is the result of the check of the data folder.
pub(crate) fn evaluate(
    node: &NodeStatus,
    database: &DatabaseStatus,
    disk: Result<(), String>,
    now: Instant,
) -> Readiness {
    let member = match &database.state {
        DatabaseState::Member { .. } => Ok(()),
        DatabaseState::OutOfService(reason) => Err(reason.clone()),
    };
    let checks = [
        ("drain", if node.draining { Err("draining".to_owned()) } else { Ok(()) }),
        ("secrets", node.secrets.clone()),
        ("mongod", node.mongod.clone()),
        ("member", member),
        ("majority", node.majority(now)),
        ("registered", node.registered.clone()),
        ("disk", disk),
    ];
    Readiness {
        ready: checks.iter().all(|(_, result)| result.is_ok()),
        checks: checks
            .into_iter()
            .map(|(name, result)| (name, result.err().unwrap_or_else(|| "ok".to_owned())))
            .collect(),
    }
}

/// A write is made at least every six seconds, and fails within three.
const MAX_WRITE_AGE: Duration = Duration::from_secs(9);

#[cfg(test)]
mod tests {
    use super::*;

    /// The checks that fail, with their reasons.
    fn failures(
        node: &NodeStatus,
        database: &DatabaseStatus,
        disk: Result<(), String>,
        now: Instant,
    ) -> Vec<(&'static str, String)> {
        let readiness = evaluate(node, database, disk, now);
        let failed: Vec<_> = readiness.checks.into_iter().filter(|(_, result)| result != "ok").collect();
        assert_eq!(readiness.ready, failed.is_empty());
        failed
    }

    fn ready(now: Instant) -> (NodeStatus, DatabaseStatus) {
        let mut node = NodeStatus { secrets: Ok(()), mongod: Ok(()), ..NodeStatus::default() };
        node.on_write(now);
        (node, DatabaseStatus { state: DatabaseState::Member { primary: false }, hosts: Vec::new() })
    }

    #[test]
    fn node_that_has_just_started_is_not_ready_and_states_why() {
        let failed = failures(&NodeStatus::default(), &DatabaseStatus::unknown(), Ok(()), Instant::now());
        let names: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["majority", "member", "mongod", "registered", "secrets"]);
        assert!(failed.iter().all(|(_, reason)| !reason.is_empty()), "{failed:?}");
    }

    #[test]
    fn every_check_can_fail_alone() {
        let now = Instant::now();
        let reason = || Err("broken".to_owned());
        let check = |name: &'static str, change: &dyn Fn(&mut NodeStatus, &mut DatabaseStatus), expected: &str| {
            let (mut node, mut database) = ready(now);
            assert_eq!(failures(&node, &database, Ok(()), now), []);
            change(&mut node, &mut database);
            assert_eq!(failures(&node, &database, Ok(()), now), [(name, expected.to_owned())]);
        };
        check("drain", &|node, _| node.draining = true, "draining");
        check("secrets", &|node, _| node.secrets = reason(), "broken");
        check("mongod", &|node, _| node.mongod = reason(), "broken");
        check("member", &|_, database| database.state = DatabaseState::OutOfService("broken".to_owned()), "broken");
        check("majority", &|node, _| node.write_failure = Some("broken".to_owned()), "broken");
        check("registered", &|node, _| node.registered = reason(), "broken");
        let (node, database) = ready(now);
        assert_eq!(failures(&node, &database, reason(), now), [("disk", "broken".to_owned())]);
    }

    #[test]
    fn majority_expires_without_a_new_write() {
        let now = Instant::now();
        let (mut node, database) = ready(now);
        assert_eq!(failures(&node, &database, Ok(()), now + MAX_WRITE_AGE), []);
        let late = now + MAX_WRITE_AGE + Duration::from_secs(1);
        let reason = "no write has reached the majority of the replica set for 10 s".to_owned();
        assert_eq!(failures(&node, &database, Ok(()), late), [("majority", reason)]);
        node.write_failure = Some("no primary".to_owned());
        node.on_write(late);
        assert_eq!(failures(&node, &database, Ok(()), late), []);
    }
}
