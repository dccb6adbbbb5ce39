//! Splices the generations of a stream into one timeline: when a stream resumes on another node,
//! its clock restarts, and consumers must not see it jump back.
//!
//! A plain value of the producer. The times of a later generation are shifted by a
//! constant, so that its newest frame plays now and its first frame follows the last frame
//! of the previous generation.

use headwater_wire::MediaTime;
use tokio::time::Instant;

/// The state of the timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splice {
    /// The current generation: Unix time in milliseconds at which it was published.
    pub(super) generation: u64,
    /// Added to the times of the current generation.
    pub(super) time_shift: MediaTime,
    /// Greatest decoding time so far, and when it arrived.
    newest: Option<(MediaTime, Instant)>,
}

impl Splice {
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, time_shift: MediaTime::ZERO, newest: None }
    }

    pub(super) fn on_frame(&mut self, dts: MediaTime) {
        match &mut self.newest {
            Some((newest, at)) => {
                *newest = dts.max(*newest);
                *at = Instant::now();
            }
            none => *none = Some((dts, Instant::now())),
        }
    }

    /// Starts another generation. Its frames from `first` to `newest` are available at once.
    pub(super) fn start_generation(&mut self, generation: u64, first: MediaTime, newest: MediaTime) {
        self.generation = generation;
        let Some((last, at)) = self.newest else { return };
        let elapsed = MediaTime::from_duration(at.elapsed());
        let gap = (elapsed - (newest - first)).max(MIN_GAP);
        self.time_shift = last + gap - first;
    }
}

/// Minimum gap between generations: the duration of a frame at 50 frames per second.
const MIN_GAP: MediaTime = MediaTime::from_ms(20);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn ms(ms: i64) -> MediaTime {
        MediaTime::from_ms(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn later_generation_continues_at_the_elapsed_wall_clock_time() {
        let mut splice = Splice::new(1);
        splice.on_frame(ms(90_000));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        splice.start_generation(2, ms(0), ms(400));
        assert_eq!(splice.time_shift + ms(400), ms(91_500));
    }

    #[tokio::test(start_paused = true)]
    async fn later_generation_never_starts_before_the_last_frame() {
        let mut splice = Splice::new(1);
        splice.on_frame(ms(90_000));
        splice.start_generation(2, ms(5_000), ms(7_000));
        assert_eq!(splice.time_shift + ms(5_000), ms(90_020));
    }

    #[test]
    fn first_generation_keeps_its_times() {
        let mut splice = Splice::new(1);
        splice.start_generation(1, ms(5_000), ms(7_000));
        assert_eq!(splice.time_shift, MediaTime::ZERO);
    }
}
