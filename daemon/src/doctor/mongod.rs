//! Does the database of a registry node run, and is it a member of its replica set?

use headwater_api::error::Chain;
use headwater_registry::{MemberState, Mongod};

use super::Finding;
use crate::mongod::Layout;
use crate::plan::Plan;

const CHECK: &str = "mongod";

/// Asks it how it stands; for that it wants no password.
pub(super) async fn check(plan: Option<&Plan>) -> Finding {
    let Some((plan, cluster, listen)) = plan.and_then(|plan| Some((plan, plan.cluster.as_ref()?, plan.mongod?))) else {
        return Finding::skip(CHECK, "this is no registry node");
    };
    let layout = Layout::new(&plan.engine.node.data_dir, listen, cluster.replica_set());
    let asked = async { Mongod::at(layout.local(), None)?.hello().await };
    let state = asked.await.map(|hello| hello.state).map_err(|e| Chain(&e).to_string());
    judge(state, layout.replica_set())
}

fn judge(state: Result<MemberState, String>, set: &str) -> Finding {
    match state {
        Ok(MemberState::Primary) => Finding::ok(CHECK, format!("primary of {set}")),
        Ok(MemberState::Secondary) => Finding::ok(CHECK, format!("secondary of {set}")),
        Ok(MemberState::Busy) => Finding::warn(
            CHECK,
            format!("a member of {set}, but it does not serve"),
            "wait while it starts or copies; if it stays so, see that most registry nodes run and reach each other",
        ),
        Ok(MemberState::Setless) => Finding::fail(
            CHECK,
            format!("it runs, but is not in {set}"),
            "read the node's log (journalctl -u headwaterd): it says what the node waits for",
        ),
        Ok(MemberState::Alone) => Finding::fail(
            CHECK,
            "it runs without a replica set: headwaterd did not start it",
            "end whatever else runs a mongod on this machine",
        ),
        Err(why) => Finding::fail(
            CHECK,
            why,
            "start the node: systemctl start headwaterd, or headwaterd run; its log says why mongod does not run",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mark, plan_of};
    use super::*;

    #[tokio::test]
    async fn a_database_is_well_as_a_member_that_serves_and_everything_else_has_its_remedy() {
        assert_eq!(check(Some(&plan_of(""))).await.mark, Mark::Skip);
        assert_eq!(check(None).await.mark, Mark::Skip);
        for (state, mark) in [
            (Ok(MemberState::Primary), Mark::Ok),
            (Ok(MemberState::Secondary), Mark::Ok),
            (Ok(MemberState::Busy), Mark::Warn),
            (Ok(MemberState::Setless), Mark::Fail),
            (Ok(MemberState::Alone), Mark::Fail),
            (Err("no answer".to_owned()), Mark::Fail),
        ] {
            let found = judge(state, "headwater-demo");
            assert_eq!((found.mark, found.todo.is_empty()), (mark, mark == Mark::Ok), "{found:?}");
        }
    }
}
