//! Checks that the database of a registry node runs as a member of its replica set.

use headwater_api::error::Chain;
use headwater_registry::{MemberState, Mongod};

use super::Finding;
use crate::boot::plan::Plan;
use crate::registry_node::config::MongodConfig;

const CHECK: &str = "mongod";

/// Queries the state of the local mongod, which needs no password.
pub(super) async fn check(plan: Option<&Plan>) -> Finding {
    let Some((plan, cluster, listen)) = plan.and_then(|plan| Some((plan, plan.cluster.as_ref()?, plan.mongod?))) else {
        return Finding::skip(CHECK, "this is not a registry node");
    };
    let config = MongodConfig::new(&plan.engine.node.data_dir, listen, cluster.replica_set());
    let query = async { Mongod::at(config.local_address(), None)?.hello().await };
    let state = query.await.map(|hello| hello.state).map_err(|e| Chain(&e).to_string());
    judge(state, config.replica_set())
}

fn judge(state: Result<MemberState, String>, set: &str) -> Finding {
    match state {
        Ok(MemberState::Primary) => Finding::ok(CHECK, format!("primary of {set}")),
        Ok(MemberState::Secondary) => Finding::ok(CHECK, format!("secondary of {set}")),
        Ok(MemberState::NotReady) => Finding::warn(
            CHECK,
            format!("a member of {set}, but it does not serve"),
            "wait while it starts or copies; if it stays so, check that most registry nodes run and reach each other",
        ),
        Ok(MemberState::Uninitialized) => Finding::fail(
            CHECK,
            format!("it runs, but is not in {set}"),
            "read the node's log (journalctl -u headwaterd): it states what the node waits for",
        ),
        Ok(MemberState::Standalone) => Finding::fail(
            CHECK,
            "it runs without a replica set: headwaterd did not start it",
            "stop the other mongod on this machine",
        ),
        Err(reason) => Finding::fail(
            CHECK,
            reason,
            "start the node: systemctl start headwaterd, or headwaterd run; its log states why mongod does not run",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CheckStatus, plan_from};
    use super::*;

    #[tokio::test]
    async fn serving_member_passes_and_every_other_state_has_a_remedy() {
        assert_eq!(check(Some(&plan_from(""))).await.status, CheckStatus::Skip);
        assert_eq!(check(None).await.status, CheckStatus::Skip);
        for (state, mark) in [
            (Ok(MemberState::Primary), CheckStatus::Ok),
            (Ok(MemberState::Secondary), CheckStatus::Ok),
            (Ok(MemberState::NotReady), CheckStatus::Warn),
            (Ok(MemberState::Uninitialized), CheckStatus::Fail),
            (Ok(MemberState::Standalone), CheckStatus::Fail),
            (Err("no answer".to_owned()), CheckStatus::Fail),
        ] {
            let found = judge(state, "headwater-demo");
            assert_eq!((found.status, found.remedy.is_empty()), (mark, mark == CheckStatus::Ok), "{found:?}");
        }
    }
}
