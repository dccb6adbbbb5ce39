//! Checks the recording storage in S3.

use super::Finding;

/// This version has no bucket setting and stores nothing in S3.
pub(super) fn check() -> Finding {
    Finding::skip("s3", "not configured: this version uploads nothing")
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;

    #[test]
    fn storage_check_is_skipped_without_a_bucket() {
        assert_eq!(super::check().status, CheckStatus::Skip);
    }
}
