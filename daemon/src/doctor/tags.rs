//! Checks that the instance can read its own tags.

use super::Finding;
use crate::boot::facts::{Instance, Tags};

const CHECK: &str = "tags";

/// Evaluates where the tags were read.
pub(super) fn check(instance: Option<&Instance>) -> Finding {
    let Some(instance) = instance else { return Finding::skip(CHECK, "no instance, no tags") };
    let enable = "set InstanceMetadataTags to enabled in the launch template";
    match &instance.tags {
        Tags::Metadata { tags } => Finding::ok(CHECK, format!("{} of ours, shown by metadata", tags.len())),
        Tags::Api { tags } => Finding::warn(
            CHECK,
            format!("{} of ours, but metadata hides them and ec2:DescribeTags had to be asked", tags.len()),
            enable,
        ),
        Tags::Hidden => Finding::fail(CHECK, "metadata hides them", enable),
        Tags::Unknown { why } => Finding::fail(
            CHECK,
            format!("metadata hides them, and {why}"),
            format!("{enable}, or allow ec2:DescribeTags to the instance's role"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn tags_are_well_in_metadata_a_warning_from_the_api_and_a_failure_from_nowhere() {
        let mark = |tags: Tags| check(Some(&Instance { tags, ..Instance::default() })).status;
        assert_eq!(mark(Tags::Metadata { tags: Default::default() }), CheckStatus::Ok);
        assert_eq!(mark(Tags::Api { tags: Default::default() }), CheckStatus::Warn);
        assert_eq!(mark(Tags::Unknown { why: "access denied".to_owned() }), CheckStatus::Fail);
        assert_eq!(mark(Tags::Hidden), CheckStatus::Fail);
        assert_eq!(check(None).status, CheckStatus::Skip);
    }
}
