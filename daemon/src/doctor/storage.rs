//! Can recordings be stored in S3?

use super::Finding;

/// This version has no setting that names a bucket, and stores nothing there.
pub(super) fn check() -> Finding {
    Finding::skip("s3", "not configured: this version uploads nothing")
}

#[cfg(test)]
mod tests {
    use super::super::Mark;

    #[test]
    fn without_a_bucket_there_is_nothing_to_check() {
        assert_eq!(super::check().mark, Mark::Skip);
    }
}
