//! Checks the clock of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Finding;

const CHECK: &str = "clock";

/// Compares this machine's clock with a shared registry's. `registry_error` is the finding of the
/// registry check: AWS rejects requests that are signed with a wrong clock before the registry is
/// ever reached.
pub(super) fn check(registry_ms: Option<u64>, registry_error: &str) -> Finding {
    judge(now_ms(), registry_ms, registry_error)
}

/// True if this is AWS's error for a request signed with a clock that is wrong by more than five
/// minutes.
pub(super) fn is_clock_error(error: &str) -> bool {
    ["Signature expired", "Signature not yet current", "RequestExpired", "RequestTimeTooSkewed"]
        .iter()
        .any(|word| error.contains(word))
}

fn judge(now_ms: u64, registry_ms: Option<u64>, registry_error: &str) -> Finding {
    let remedy = "run chrony or systemd-timesyncd; on EC2 the time server is 169.254.169.123";
    if now_ms < EARLIEST_PLAUSIBLE_MS {
        return Finding::fail(CHECK, "it shows a time before this program was written", remedy);
    }
    if is_clock_error(registry_error) {
        return Finding::fail(CHECK, "AWS rejects requests signed with it: it is more than five minutes off", remedy);
    }
    let Some(registry_ms) = registry_ms else {
        return Finding::ok(CHECK, "plausible; there is no other clock to compare it with");
    };
    let offset_ms = now_ms.abs_diff(registry_ms);
    let message = format!("{}.{:03} s from the registry's", offset_ms / 1_000, offset_ms % 1_000);
    match offset_ms {
        0..WARN_OFFSET_MS => Finding::ok(CHECK, message),
        WARN_OFFSET_MS..FAIL_OFFSET_MS => Finding::warn(CHECK, message, remedy),
        _ => Finding::fail(CHECK, message, remedy),
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Returns Unix time in seconds.
pub(super) fn now_s() -> u64 {
    now_ms() / 1_000
}

/// 2026-01-01.
const EARLIEST_PLAUSIBLE_MS: u64 = 1_767_225_600_000;
/// Offsets that show in logs, and offsets that break certificates and tokens.
const WARN_OFFSET_MS: u64 = 1_000;
const FAIL_OFFSET_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn clock_is_judged_by_its_offset_in_both_directions() {
        let now = 1_800_000_000_000;
        let check = |registry: Option<u64>, expected: CheckStatus| {
            assert_eq!(judge(now, registry, "").status, expected, "{registry:?}")
        };
        check(None, CheckStatus::Ok);
        check(Some(now + 999), CheckStatus::Ok);
        check(Some(now - 1_000), CheckStatus::Warn);
        check(Some(now + 3_600_000), CheckStatus::Fail);
        check(Some(now - 3_600_000), CheckStatus::Fail);
        assert_eq!(judge(0, None, "").status, CheckStatus::Fail);
        assert_eq!(judge(now, Some(now - 1_234), "").message, "1.234 s from the registry's");
        assert_eq!(judge(now, None, "service error: Signature expired: 2026").status, CheckStatus::Fail);
        assert_eq!(judge(now, None, "service error: AccessDenied").status, CheckStatus::Ok);
    }
}
