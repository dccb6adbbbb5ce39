//! Checks that the machine has a valid role.

use super::Finding;
use crate::boot::plan::{Plan, PlanError};

const CHECK: &str = "role";

/// Evaluates the result of planning.
pub(super) fn check(planned: Result<&Plan, &PlanError>) -> Finding {
    match planned {
        Ok(plan) if !plan.in_service => Finding::warn(
            CHECK,
            format!("{}, but Auto Scaling keeps this instance warm: it does not serve", plan.engine.node.role.as_str()),
            "nothing, unless it should serve: then check the group's warm pool",
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
    use super::super::{CheckStatus, plan_from};
    use super::*;

    #[test]
    fn unknown_role_fails_and_warm_instance_warns() {
        let mut plan = plan_from("node.role = 'standalone'");
        assert_eq!(check(Ok(&plan)), Finding::ok("role", "standalone (configuration file)"));
        plan.in_service = false;
        assert_eq!(check(Ok(&plan)).status, CheckStatus::Warn);
        let found = check(Err(&PlanError::UnknownRole { value: "king".to_owned() }));
        assert_eq!(found.status, CheckStatus::Fail);
        assert!(found.message.contains("king") && !found.remedy.is_empty());
    }
}
