//! Checks that the instance can read its own tags.

use super::Finding;
use crate::boot::facts::{Instance, Tags};

const CHECK: &str = "tags";

/// Evaluates where the tags were read.
pub(super) fn check(instance: Option<&Instance>) -> Finding {
    let Some(instance) = instance else { return Finding::skip(CHECK, "no instance, no tags") };
    let enable = "set InstanceMetadataTags to enabled in the launch template";
    match &instance.tags {
        Tags::Metadata { tags } => Finding::ok(CHECK, format!("{} Headwater tags, shown by metadata", tags.len())),
        Tags::Api { tags } => Finding::warn(
            CHECK,
            format!("{} Headwater tags, but metadata hides them and ec2:DescribeTags was needed", tags.len()),
            enable,
        ),
        Tags::Hidden => Finding::fail(CHECK, "metadata hides them", enable),
        Tags::Unknown { reason } => Finding::fail(
            CHECK,
            format!("metadata hides them, and {reason}"),
            format!("{enable}, or allow ec2:DescribeTags for the instance's role"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn tags_pass_from_metadata_warn_from_the_api_and_fail_if_unknown() {
        let mark = |tags: Tags| check(Some(&Instance { tags, ..Instance::default() })).status;
        assert_eq!(mark(Tags::Metadata { tags: Default::default() }), CheckStatus::Ok);
        assert_eq!(mark(Tags::Api { tags: Default::default() }), CheckStatus::Warn);
        assert_eq!(mark(Tags::Unknown { reason: "access denied".to_owned() }), CheckStatus::Fail);
        assert_eq!(mark(Tags::Hidden), CheckStatus::Fail);
        assert_eq!(check(None).status, CheckStatus::Skip);
    }
}
