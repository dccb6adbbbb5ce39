//! Converts the RTMP timestamps of one publisher to milliseconds on one timeline.
//!
//! RTMP timestamps are milliseconds modulo 2^32. The first message of a stream is at time zero.
//! Video and audio are unwrapped separately, each against its own last timestamp: an encoder may
//! interleave them in long blocks, or take them from two clocks. The offset between the two is
//! kept.
//!
//! | step since the last timestamp of the same kind | meaning |
//! | --- | --- |
//! | up to 10 s forwards, up to 1 s backwards | time passes |
//! | more, but close to the last timestamp of the other kind | a gap in this kind only |
//! | more | a discontinuity: time continues where it was |
//!
//! A plain value; it must not know tags or codecs.

use crate::MediaKind;

/// The last timestamp of each kind.
#[derive(Debug, Default)]
pub(super) struct TimestampUnwrapper {
    video: Option<Mapping>,
    audio: Option<Mapping>,
}

/// A timestamp and its time on the timeline.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    timestamp_ms: u32,
    time_ms: i64,
}

impl Mapping {
    /// Milliseconds from this timestamp to `timestamp_ms`, by the shorter way around.
    fn step_to(self, timestamp_ms: u32) -> i64 {
        i64::from(timestamp_ms.wrapping_sub(self.timestamp_ms).cast_signed())
    }

    /// The time of `timestamp_ms`, if it is less than a discontinuity away.
    fn time_of_nearby(self, timestamp_ms: u32) -> Option<i64> {
        let step = self.step_to(timestamp_ms);
        (step.abs() <= MAX_STEP_MS).then_some(self.time_ms + step)
    }
}

impl TimestampUnwrapper {
    /// Returns the time of the next message of this kind. It is negative if the message belongs
    /// before the first one of the stream.
    pub(super) fn unwrap_ms(&mut self, kind: MediaKind, timestamp_ms: u32) -> i64 {
        let (own, other) = match kind {
            MediaKind::Video => (&mut self.video, self.audio),
            MediaKind::Audio => (&mut self.audio, self.video),
        };
        let by_other = other.and_then(|other| other.time_of_nearby(timestamp_ms));
        let time_ms = match *own {
            None => by_other.or(other.map(|other| other.time_ms)).unwrap_or(0),
            Some(last) => {
                let step = last.step_to(timestamp_ms);
                if (-MAX_STEP_BACK_MS..=MAX_STEP_MS).contains(&step) {
                    last.time_ms + step
                } else {
                    by_other.filter(|time| *time >= last.time_ms - MAX_STEP_BACK_MS).unwrap_or(last.time_ms)
                }
            }
        };
        *own = Some(Mapping { timestamp_ms, time_ms });
        time_ms
    }
}

/// A longer step is a discontinuity: no publisher is silent for this duration without being closed.
pub(super) const MAX_STEP_MS: i64 = 10_000;
/// Jitter stays below this; a longer step back means that the publisher's timestamps restarted.
pub(super) const MAX_STEP_BACK_MS: i64 = 1_000;

#[cfg(test)]
mod tests {
    use super::MediaKind::{Audio, Video};
    use super::*;

    fn check(messages: &[(MediaKind, u32, i64)]) {
        let mut unwrapper = TimestampUnwrapper::default();
        for &(kind, timestamp_ms, expect) in messages {
            assert_eq!(unwrapper.unwrap_ms(kind, timestamp_ms), expect, "{kind:?} at {timestamp_ms}");
        }
    }

    #[test]
    fn offset_between_two_clocks_is_kept_while_the_kinds_alternate() {
        let mut unwrapper = TimestampUnwrapper::default();
        for ms in (0..60_000).step_by(20) {
            assert_eq!(unwrapper.unwrap_ms(Video, ms + 1_500), i64::from(ms));
            assert_eq!(unwrapper.unwrap_ms(Audio, ms), i64::from(ms) - 1_500);
        }
    }

    #[test]
    fn kinds_in_long_blocks_have_their_own_times() {
        let mut unwrapper = TimestampUnwrapper::default();
        for block in (0..60_000_u32).step_by(4_000) {
            for kind in [Video, Audio] {
                for ms in (block..block + 4_000).step_by(20) {
                    assert_eq!(unwrapper.unwrap_ms(kind, ms), i64::from(ms));
                }
            }
        }
    }

    #[test]
    fn step_above_ten_seconds_is_a_discontinuity_without_a_jump_in_time() {
        check(&[(Video, 0, 0), (Video, 10_000, 10_000), (Video, 20_001, 10_000), (Video, 20_034, 10_033)]);
        check(&[(Video, 0, 0), (Video, 33, 33), (Video, 0x7fff_fff0, 33), (Video, 99, 33), (Video, 132, 66)]);
    }

    #[test]
    fn discontinuity_of_both_kinds_keeps_the_offset_between_them() {
        check(&[(Video, 90_000, 0), (Audio, 90_010, 10), (Video, 90_040, 40), (Audio, 90_031, 31)]);
        check(&[
            (Video, 90_000, 0),
            (Audio, 90_010, 10),
            (Video, 5, 0),
            (Audio, 15, 10),
            (Video, 45, 40),
            (Audio, 0x7fff_fff0, 10),
            (Audio, 57, 52),
        ]);
    }

    #[test]
    fn gap_in_one_kind_is_no_discontinuity_if_the_other_confirms_it() {
        let mut unwrapper = TimestampUnwrapper::default();
        unwrapper.unwrap_ms(Audio, 0);
        for ms in (0..60_000).step_by(40) {
            unwrapper.unwrap_ms(Video, ms);
        }
        assert_eq!(unwrapper.unwrap_ms(Audio, 60_000), 60_000);
    }

    #[test]
    fn kinds_further_apart_than_a_discontinuity_begin_together() {
        check(&[(Audio, 0, 0), (Audio, 21, 21), (Video, 0x7fff_fff0, 21), (Video, 0x8000_0010, 53), (Audio, 42, 42)]);
    }
}
