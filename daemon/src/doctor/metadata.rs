//! Does instance metadata answer?

use super::Finding;
use crate::facts::Facts;

const CHECK: &str = "metadata";

/// Judges what came of asking for the facts.
pub(super) fn check(facts: Result<&Facts, String>) -> Finding {
    match facts {
        Err(why) => Finding::fail(
            CHECK,
            why,
            "let the instance answer IMDSv2 (HttpEndpoint: enabled), and look at [metadata] endpoint in the file",
        ),
        Ok(Facts { instance: None, .. }) => Finding::skip(CHECK, "none here: a machine on its own"),
        Ok(Facts { instance: Some(i), .. }) => Finding::ok(CHECK, format!("{}, {}, {}", i.id, i.instance_type, i.zone)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;
    use crate::facts::Instance;

    #[test]
    fn metadata_fails_without_an_answer_and_is_not_missed_outside_a_cloud() {
        assert_eq!(check(Err("no answer within 2s".to_owned())).mark, Mark::Fail);
        assert_eq!(check(Ok(&Facts::default())).mark, Mark::Skip);
        let instance = Instance { id: "i-0abc".to_owned(), ..Instance::default() };
        let found = check(Ok(&Facts { instance: Some(instance), ..Facts::default() }));
        assert_eq!(found.mark, Mark::Ok);
        assert!(found.what.contains("i-0abc"));
    }
}
