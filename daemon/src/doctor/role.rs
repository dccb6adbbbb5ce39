//! Does the machine know what it is?

use super::Finding;
use crate::plan::{Plan, PlanError};

const CHECK: &str = "role";

/// Judges what came of planning.
pub(super) fn check(planned: Result<&Plan, &PlanError>) -> Finding {
    match planned {
        Ok(plan) if !plan.wanted => Finding::warn(
            CHECK,
            format!("{}, but Auto Scaling keeps this instance warm: it does not serve", plan.engine.node.role.as_str()),
            "nothing, unless it should serve: then look at the group's warm pool",
        ),
        Ok(plan) => {
            let cluster = plan.cluster.as_ref().map_or(String::new(), |cluster| format!(", cluster {}", cluster.name));
            Finding::ok(CHECK, format!("{} ({}){cluster}", plan.engine.node.role.as_str(), plan.role_from))
        }
        Err(e) => Finding::fail(
            CHECK,
            e.to_string(),
            "docs/ec2.md lists the tags; `headwaterd plan` shows what was found; the node starts once the tag is right",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mark, plan_of};
    use super::*;

    #[test]
    fn a_role_that_is_unknown_fails_and_one_that_is_not_wanted_yet_warns() {
        let mut plan = plan_of("node.role = 'standalone'");
        assert_eq!(check(Ok(&plan)), Finding::ok("role", "standalone (configuration file)"));
        plan.wanted = false;
        assert_eq!(check(Ok(&plan)).mark, Mark::Warn);
        let found = check(Err(&PlanError::UnknownRole { value: "king".to_owned() }));
        assert_eq!(found.mark, Mark::Fail);
        assert!(found.what.contains("king") && !found.todo.is_empty());
    }
}
