//! The one clock of the media path. It must never be mixed with wall-clock time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a stream's media timeline, in flicks (1/705_600_000 s) since its first frame.
///
/// The clocks used here (1 kHz RTMP, 90 kHz RTP and TS, every AAC and Opus rate) all divide this one, so
/// converting never rounds. Signed: a B-frame may precede the origin. Never wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(i64);

impl MediaTime {
    /// Flicks per second.
    pub const HZ: i64 = 705_600_000;
    /// The origin of a timeline.
    pub const ZERO: Self = Self(0);

    /// From flicks.
    pub const fn from_flicks(flicks: i64) -> Self {
        Self(flicks)
    }

    /// Flicks since the origin.
    pub const fn as_flicks(self) -> i64 {
        self.0
    }

    /// From ticks of a `hz` clock; exact if `hz` divides [`Self::HZ`], else rounded down. `hz` of 0 counts as 1.
    pub const fn from_ticks(ticks: i64, hz: u32) -> Self {
        let hz = if hz == 0 { 1 } else { hz as i128 };
        Self(((ticks as i128) * (Self::HZ as i128)).div_euclid(hz) as i64)
    }

    /// From milliseconds, the clock of RTMP.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(Self::HZ / 1_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_ms(self) -> i64 {
        self.0.div_euclid(Self::HZ / 1_000)
    }

    /// Ticks of a `hz` clock, rounded down.
    pub const fn to_ticks(self, hz: u32) -> i64 {
        ((self.0 as i128) * (hz as i128)).div_euclid(Self::HZ as i128) as i64
    }

    /// Ticks of a `hz` clock, modulo 2^32 as RTP wants them (RFC 3550 §5.1).
    pub const fn to_rtp(self, hz: u32) -> u32 {
        self.to_ticks(hz) as u32
    }

    /// From a span of time.
    pub const fn from_duration(d: Duration) -> Self {
        Self(((d.as_nanos() as i128) * (Self::HZ as i128) / 1_000_000_000) as i64)
    }

    /// As a span of time; zero if negative.
    pub const fn to_duration(self) -> Duration {
        if self.0 <= 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(((self.0 as i128) * 1_000_000_000 / (Self::HZ as i128)) as u64)
    }

    /// Seconds, for playlists and people.
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
    fn rtp_time_wraps_at_2_to_the_32() {
        assert_eq!(MediaTime::from_ticks((1_i64 << 32) + 9, 90_000).to_rtp(90_000), 9);
        assert_eq!(MediaTime::from_ticks(-1, 90_000).to_rtp(90_000), u32::MAX);
    }

    #[test]
    fn no_arithmetic_overflows() {
        let far = MediaTime::from_flicks(i64::MAX);
        assert_eq!(far + far, far);
        assert_eq!(MediaTime::from_ms(i64::MAX).as_flicks(), i64::MAX);
        let _ = MediaTime::from_ticks(i64::MAX, 0);
        let _ = far.to_duration();
    }
}
