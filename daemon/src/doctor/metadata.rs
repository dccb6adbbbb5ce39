//! Checks that instance metadata answers.

use super::Finding;
use crate::boot::facts::Facts;

const CHECK: &str = "metadata";

/// Evaluates the result of fetching the facts.
pub(super) fn check(facts: Result<&Facts, String>) -> Finding {
    match facts {
        Err(reason) => Finding::fail(
            CHECK,
            reason,
            "let the instance answer IMDSv2 (HttpEndpoint: enabled), and check [metadata] endpoint in the file",
        ),
        Ok(Facts { instance: None, .. }) => Finding::skip(CHECK, "none here: not an EC2 instance"),
        Ok(Facts { instance: Some(i), .. }) => Finding::ok(CHECK, format!("{}, {}, {}", i.id, i.instance_type, i.zone)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;
    use crate::boot::facts::Instance;

    #[test]
    fn metadata_check_fails_without_an_answer_and_is_skipped_outside_a_cloud() {
        assert_eq!(check(Err("no answer within 2s".to_owned())).status, CheckStatus::Fail);
        assert_eq!(check(Ok(&Facts::default())).status, CheckStatus::Skip);
        let instance = Instance { id: "i-0abc".to_owned(), ..Instance::default() };
        let found = check(Ok(&Facts { instance: Some(instance), ..Facts::default() }));
        assert_eq!(found.status, CheckStatus::Ok);
        assert!(found.message.contains("i-0abc"));
    }
}
