//! Puts sound packets back on an even grid.
//!
//! RTMP counts milliseconds, so the packets of an encoder that makes one every 21⅓ ms arrive 21 or 22 ms apart. Played
//! like that, players see gaps and overlaps of a millisecond. The packets of one segment are therefore counted on from
//! its first one; the result depends on the segment alone, so every node gets the same.

use crate::MediaTime;

/// The grid of one segment.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    hz: u32,
    next_ticks: Option<i64>,
}

impl Timeline {
    /// `hz`: the track's clock.
    pub(super) fn new(hz: u32) -> Self {
        Self { hz, next_ticks: None }
    }

    /// Where a packet of `duration_ticks` that says `dts` belongs, in ticks. A packet that is off by half its duration
    /// begins a new grid: something was lost, or the clocks drift.
    pub(super) fn place(&mut self, dts: MediaTime, duration_ticks: u32) -> i64 {
        let said = dts.to_ticks(self.hz);
        let tolerance = i64::from(duration_ticks) / 2;
        let at = self.next_ticks.filter(|next| (next - said).abs() <= tolerance).unwrap_or(said);
        self.next_ticks = Some(at + i64::from(duration_ticks));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_a_millisecond_off_stand_on_the_grid_and_packets_after_a_gap_do_not() {
        let mut timeline = Timeline::new(48_000);
        let mut at = |ms| timeline.place(MediaTime::from_ms(ms), 1_024);
        assert_eq!([at(1_000), at(1_021), at(1_043), at(1_064)], [48_000, 49_024, 50_048, 51_072]);
        assert_eq!(at(1_200), 57_600);
        assert_eq!(at(1_221), 58_624);
    }
}
