//! The time type of the media path. It must never be mixed with wall-clock time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a stream's media timeline, in flicks (1/705_600_000 s) since its first frame.
///
/// The rates of all clocks used here (1 kHz RTMP, 90 kHz RTP and TS, every AAC and Opus rate)
/// divide the flick rate evenly, so conversions never round. Signed, because a B-frame may precede
/// the origin. Arithmetic saturates.
///
/// ```
/// use headwater_wire::MediaTime;
///
/// let frame = MediaTime::from_ticks(3_003, 90_000); // one frame at 29.97 frames per second
/// assert_eq!(frame.as_ms(), 33);
/// assert_eq!((frame + frame).to_rtp(90_000), 6_006);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(i64);

impl MediaTime {
    /// Flicks per second.
    pub const HZ: i64 = 705_600_000;
    /// The origin of a timeline.
    pub const ZERO: Self = Self(0);

    /// Creates a time from flicks.
    pub const fn from_flicks(flicks: i64) -> Self {
        Self(flicks)
    }

    /// Returns the flicks since the origin.
    pub const fn as_flicks(self) -> i64 {
        self.0
    }

    /// Converts from ticks of a `hz` clock. Exact if `hz` divides [`Self::HZ`], otherwise rounded
    /// down. A `hz` of 0 is treated as 1.
    pub const fn from_ticks(ticks: i64, hz: u32) -> Self {
        let hz = if hz == 0 { 1 } else { hz as i128 };
        Self(((ticks as i128) * (Self::HZ as i128)).div_euclid(hz) as i64)
    }

    /// Converts from milliseconds, the unit of RTMP timestamps.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(Self::HZ / 1_000))
    }

    /// Converts to whole milliseconds, rounded down.
    pub const fn as_ms(self) -> i64 {
        self.0.div_euclid(Self::HZ / 1_000)
    }

    /// Converts to ticks of a `hz` clock, rounded down.
    pub const fn to_ticks(self, hz: u32) -> i64 {
        ((self.0 as i128) * (hz as i128)).div_euclid(Self::HZ as i128) as i64
    }

    /// Converts to ticks of a `hz` clock, modulo 2^32 as RTP requires (RFC 3550 §5.1).
    pub const fn to_rtp(self, hz: u32) -> u32 {
        self.to_ticks(hz) as u32
    }

    /// Converts from a duration.
    pub const fn from_duration(d: Duration) -> Self {
        Self(((d.as_nanos() as i128) * (Self::HZ as i128) / 1_000_000_000) as i64)
    }

    /// Converts to a duration; a negative time becomes zero.
    pub const fn to_duration(self) -> Duration {
        if self.0 <= 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(((self.0 as i128) * 1_000_000_000 / (Self::HZ as i128)) as u64)
    }

    /// Converts to seconds, for playlists and for display. Not exact.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / Self::HZ as f64
    }
}

impl Add for MediaTime {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Sub for MediaTime {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_in_use_round_trips_exactly_beyond_2_to_the_32_ticks() {
        let rates = [
            1, 24, 30, 1_000, 7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000,
            88_200, 90_000, 96_000,
        ];
        for hz in rates {
            for ticks in [-5, 0, 1, 12_345, (1_i64 << 32) + 7] {
                assert_eq!(MediaTime::from_ticks(ticks, hz).to_ticks(hz), ticks, "{ticks} at {hz} Hz");
            }
        }
    }

    #[test]
    fn rtp_timestamp_wraps_at_2_to_the_32() {
        assert_eq!(MediaTime::from_ticks((1_i64 << 32) + 9, 90_000).to_rtp(90_000), 9);
        assert_eq!(MediaTime::from_ticks(-1, 90_000).to_rtp(90_000), u32::MAX);
    }

    #[test]
    fn arithmetic_saturates_instead_of_overflowing() {
        let far = MediaTime::from_flicks(i64::MAX);
        assert_eq!(far + far, far);
        assert_eq!(MediaTime::from_ms(i64::MAX).as_flicks(), i64::MAX);
        let _ = MediaTime::from_ticks(i64::MAX, 0);
        let _ = far.to_duration();
    }
}
