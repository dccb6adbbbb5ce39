//! One life of an engine process, as a value: what happened goes in, what to do comes out. Waits for nothing.
//!
//! ```text
//! Starting --ready--> Serving --drain--> Draining --ended-->
//!     |                  |                   |
//!     +--start too long--+--silent too long--+--drain too long--> Killed --ended-->
//! ```

use std::time::{Duration, Instant};

/// What is asked of the engine. Only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Serve, and be started again after a crash.
    Serve,
    /// End in order, within the drain's deadline.
    Drain,
    /// End now.
    Kill,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The order is now this one.
    Ordered(Order),
    /// `/readyz` said yes.
    Ready,
    /// `/livez` answered.
    Alive,
    /// It is not ready, or `/livez` did not answer; this is why.
    Silent(String),
    /// The deadline of [`Life::deadline`] has passed.
    Overdue,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Wait,
    /// Say that the engine serves.
    Announce,
    /// SIGTERM.
    Terminate,
    /// SIGKILL, for this reason.
    Kill(String),
}

/// One engine process from its start to its end.
#[derive(Debug)]
pub(crate) struct Life {
    phase: Phase,
    drain: Duration,
    silent: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting { until: Instant },
    Serving { since: Instant, misses: u32 },
    Draining { served: Option<Duration>, until: Instant },
    Killed { served: Option<Duration> },
}

impl Life {
    /// A process started at `now`; a drain may take `drain`.
    pub(crate) fn new(now: Instant, drain: Duration) -> Self {
        Self { phase: Phase::Starting { until: now + START_PATIENCE }, drain, silent: "no answer yet".to_owned() }
    }

    /// What to do after `event`.
    pub(crate) fn apply(&mut self, event: Event, now: Instant) -> Action {
        let served = self.served(now);
        match (event, self.phase) {
            (_, Phase::Killed { .. }) | (Event::Ordered(Order::Serve), _) => Action::Wait,
            (Event::Ordered(Order::Drain), Phase::Starting { .. } | Phase::Serving { .. }) => {
                self.phase = Phase::Draining { served, until: now + self.drain + DRAIN_GRACE };
                Action::Terminate
            }
            (Event::Ordered(Order::Kill), _) => self.kill(served, "ordered to end at once".to_owned()),
            (Event::Ready, Phase::Starting { .. }) => {
                self.phase = Phase::Serving { since: now, misses: 0 };
                Action::Announce
            }
            (Event::Ready | Event::Alive, Phase::Serving { since, .. }) => {
                self.phase = Phase::Serving { since, misses: 0 };
                Action::Wait
            }
            (Event::Silent(why), Phase::Starting { .. }) => {
                self.silent = why;
                Action::Wait
            }
            (Event::Silent(why), Phase::Serving { since, misses }) => {
                self.phase = Phase::Serving { since, misses: misses + 1 };
                if misses + 1 < MAX_MISSES { Action::Wait } else { self.kill(served, format!("hangs: {why}")) }
            }
            (Event::Overdue, Phase::Starting { .. }) => {
                let why = format!("was not ready within {} s: {}", START_PATIENCE.as_secs(), self.silent);
                self.kill(served, why)
            }
            (Event::Overdue, Phase::Draining { .. }) => self.kill(served, "did not drain in time".to_owned()),
            _ => Action::Wait,
        }
    }

    fn kill(&mut self, served: Option<Duration>, why: String) -> Action {
        self.phase = Phase::Killed { served };
        Action::Kill(why)
    }

    /// True while its health is of interest; false once it is to end.
    pub(crate) fn watched(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Serving { .. })
    }

    /// True once it has been ready, while it has not been told to end.
    pub(crate) fn serving(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// When [`Event::Overdue`] is due, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { until } | Phase::Draining { until, .. } => Some(until),
            Phase::Serving { .. } | Phase::Killed { .. } => None,
        }
    }

    /// How long it has served until `now`, or until it was told to end; `None` if it never did.
    pub(crate) fn served(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Starting { .. } => None,
            Phase::Serving { since, .. } => Some(now.saturating_duration_since(since)),
            Phase::Draining { served, .. } | Phase::Killed { served } => served,
        }
    }
}

/// From the start of the process to ready. Opening ports takes milliseconds; a registry or a disk may take longer.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// On top of the drain's own deadline, which the engine keeps by itself.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Unanswered `/livez` in a row. With the pauses and time-outs of the watch this is about half a minute: killing an engine
/// that is merely starved of CPU would cut viewers for nothing.
const MAX_MISSES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    fn silent() -> Event {
        Event::Silent("no answer".to_owned())
    }

    #[test]
    fn an_engine_serves_from_ready_until_it_is_told_to_drain() {
        let t = Instant::now();
        let mut life = Life::new(t, DRAIN);
        assert_eq!(life.apply(silent(), t), Action::Wait);
        assert_eq!((life.served(t), life.serving()), (None, false));
        assert_eq!(life.apply(Event::Ready, t + SECOND), Action::Announce);
        assert_eq!((life.served(t + 4 * SECOND), life.deadline()), (Some(3 * SECOND), None));
        assert_eq!(life.apply(Event::Ordered(Order::Drain), t + 4 * SECOND), Action::Terminate);
        assert!(!life.watched() && !life.serving());
        assert_eq!(life.served(t + 9 * SECOND), Some(3 * SECOND));
    }

    #[test]
    fn an_engine_that_does_not_become_ready_is_killed_with_the_last_reason() {
        let t = Instant::now();
        let mut life = Life::new(t, DRAIN);
        life.apply(Event::Silent("rtmp: does not answer".to_owned()), t);
        assert_eq!(life.deadline(), Some(t + START_PATIENCE));
        let expected = "was not ready within 30 s: rtmp: does not answer".to_owned();
        assert_eq!(life.apply(Event::Overdue, t + START_PATIENCE), Action::Kill(expected));
        assert_eq!(life.served(t + START_PATIENCE), None);
    }

    #[test]
    fn an_engine_that_hangs_is_killed_after_five_silences_in_a_row_and_not_before() {
        let t = Instant::now();
        let mut life = Life::new(t, DRAIN);
        life.apply(Event::Ready, t);
        for _ in 0..4 {
            assert_eq!(life.apply(silent(), t), Action::Wait);
        }
        assert_eq!(life.apply(Event::Alive, t), Action::Wait); // just in time: the count starts again
        for _ in 0..4 {
            assert_eq!(life.apply(silent(), t), Action::Wait);
        }
        assert_eq!(life.apply(silent(), t), Action::Kill("hangs: no answer".to_owned()));
        assert_eq!(life.apply(silent(), t), Action::Wait);
    }

    #[test]
    fn a_drain_that_takes_too_long_and_a_second_order_both_kill() {
        let t = Instant::now();
        let draining = || {
            let mut life = Life::new(t, DRAIN);
            life.apply(Event::Ready, t);
            assert_eq!(life.apply(Event::Ordered(Order::Drain), t), Action::Terminate);
            assert_eq!(life.deadline(), Some(t + DRAIN + DRAIN_GRACE));
            life
        };
        assert!(matches!(draining().apply(Event::Overdue, t), Action::Kill(_)));
        assert!(matches!(draining().apply(Event::Ordered(Order::Kill), t), Action::Kill(_)));
        assert_eq!(draining().apply(silent(), t), Action::Wait);
        assert_eq!(draining().apply(Event::Ready, t), Action::Wait);
    }

    #[test]
    fn an_engine_can_be_drained_before_it_is_ready() {
        let t = Instant::now();
        let mut life = Life::new(t, DRAIN);
        assert_eq!(life.apply(Event::Ordered(Order::Drain), t), Action::Terminate);
        assert_eq!(life.served(t), None);
    }
}
