//! Aligns the timestamps of audio packets to a regular grid.
//!
//! RTMP timestamps are whole milliseconds, so packets of 21⅓ ms arrive 21 or 22 ms apart. With
//! these timestamps, players would see gaps and overlaps of one millisecond. The timestamps of a
//! segment are therefore computed from its first packet and the packet durations. The result
//! depends only on the segment, so it is the same on every node.

use crate::MediaTime;

/// The audio timestamps of one segment.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    hz: u32,
    next_ticks: Option<i64>,
}

impl Timeline {
    /// `hz` is the timescale of the track.
    pub(super) fn new(hz: u32) -> Self {
        Self { hz, next_ticks: None }
    }

    /// Returns the aligned timestamp, in ticks, of a packet with this timestamp and duration. A
    /// packet that deviates by more than half its duration begins a new grid: packets were lost, or
    /// the clocks drift.
    pub(super) fn align(&mut self, dts: MediaTime, duration_ticks: u32) -> i64 {
        let reported_ticks = dts.to_ticks(self.hz);
        let tolerance = i64::from(duration_ticks) / 2;
        let aligned_ticks =
            self.next_ticks.filter(|next| (next - reported_ticks).abs() <= tolerance).unwrap_or(reported_ticks);
        self.next_ticks = Some(aligned_ticks + i64::from(duration_ticks));
        aligned_ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_within_a_millisecond_are_aligned_and_packets_after_a_gap_are_not() {
        let mut timeline = Timeline::new(48_000);
        let mut at = |ms| timeline.align(MediaTime::from_ms(ms), 1_024);
        assert_eq!([at(1_000), at(1_021), at(1_043), at(1_064)], [48_000, 49_024, 50_048, 51_072]);
        assert_eq!(at(1_200), 57_600);
        assert_eq!(at(1_221), 58_624);
    }
}
