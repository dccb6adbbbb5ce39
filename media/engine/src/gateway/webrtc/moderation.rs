//! When a worker listens to its viewers: what hundreds of them say is heard in batches, as network cards moderate their interrupts.
//!
//! A viewer reports about once a second and is in no hurry; woken for each report, a worker with hundreds of viewers wakes more
//! often for reports than for pictures. So after it has listened it does not listen for a moment, unless somebody shakes hands
//! or it is flooded. A plain value: knows times and counts, no socket.

use std::time::{Duration, Instant};

/// So long it does not listen. A lost packet is sent again later by as much at most.
const REST: Duration = Duration::from_millis(10);
/// With fewer viewers there is nothing to save that matters.
const VIEWERS_AT_LEAST: usize = 50;

/// Whether a worker listens.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    rests_until: Option<Instant>,
}

impl Moderation {
    /// The worker, which has so many viewers, has heard what waited. In a flood (more than one batch) there is no rest: garbage
    /// would push what viewers say out of the kernel's queue.
    pub(super) fn heard(&mut self, now: Instant, viewers: usize, in_flood: bool) {
        self.rests_until = (viewers >= VIEWERS_AT_LEAST && !in_flood).then(|| now + REST);
    }

    /// Somebody waits for an answer.
    pub(super) fn hurry(&mut self) {
        self.rests_until = None;
    }

    /// Until when the worker does not listen, if it does not now.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|&until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_rests_between_the_reports_of_many_and_never_while_somebody_waits_or_in_a_flood() {
        let (mut moderation, now) = (Moderation::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        assert_eq!(moderation.rests_until(now), None);
        moderation.heard(now, 49, false);
        assert_eq!(moderation.rests_until(now), None);
        moderation.heard(now, 50, false);
        assert_eq!(moderation.rests_until(now), Some(later(10)));
        assert_eq!(moderation.rests_until(later(9)), Some(later(10)));
        assert_eq!(moderation.rests_until(later(10)), None);
        moderation.heard(later(12), 50, false);
        moderation.hurry();
        assert_eq!(moderation.rests_until(later(12)), None);
        moderation.heard(later(13), 50, true);
        assert_eq!(moderation.rests_until(later(13)), None);
    }
}
