//! One timeline out of several lives: when a stream goes on from another node, its clock begins anew, and readers must not
//! see it jump back.
//!
//! A value of the producer. Times of a later life are moved by a constant, so that its newest frame is now and its first
//! one comes after the last frame of the life before.

use headwater_wire::MediaTime;
use tokio::time::Instant;

/// Where the timeline is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splice {
    /// Unix time of the beginning of the life that runs, in milliseconds.
    pub(super) life: u64,
    /// Added to its times.
    pub(super) shift: MediaTime,
    /// Greatest decoding time so far, and when it came.
    newest: Option<(MediaTime, Instant)>,
}

impl Splice {
    pub(super) fn new(life: u64) -> Self {
        Self { life, shift: MediaTime::ZERO, newest: None }
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

    /// Another life goes on from here; frames from `first` to `newest` are there at once.
    pub(super) fn begin(&mut self, life: u64, first: MediaTime, newest: MediaTime) {
        self.life = life;
        let Some((last, at)) = self.newest else { return };
        let away = MediaTime::from_duration(at.elapsed());
        let pause = (away - (newest - first)).max(SMALLEST_PAUSE);
        self.shift = last + pause - first;
    }
}

/// A frame at 50 a second.
const SMALLEST_PAUSE: MediaTime = MediaTime::from_ms(20);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn ms(ms: i64) -> MediaTime {
        MediaTime::from_ms(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_life_goes_on_where_the_clock_on_the_wall_is() {
        let mut splice = Splice::new(1);
        splice.on_frame(ms(90_000));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        splice.begin(2, ms(0), ms(400));
        assert_eq!(splice.shift + ms(400), ms(91_500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_life_never_goes_back_before_the_last_frame() {
        let mut splice = Splice::new(1);
        splice.on_frame(ms(90_000));
        splice.begin(2, ms(5_000), ms(7_000));
        assert_eq!(splice.shift + ms(5_000), ms(90_020));
    }

    #[test]
    fn the_first_life_keeps_its_times() {
        let mut splice = Splice::new(1);
        splice.begin(1, ms(5_000), ms(7_000));
        assert_eq!(splice.shift, MediaTime::ZERO);
    }
}
