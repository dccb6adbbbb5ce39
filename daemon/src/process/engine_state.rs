//! The state of an engine process, as a value: events go in, actions come out. Performs no I/O.
//!
//! ```text
//! Starting --ready--> Serving --drain--> Draining --ended-->
//!     |                  |                   |
//!     +---no reports-----+---no reports------+--drain too long--> Killed --ended-->
//! ```
//!
//! Only silence and an overlong drain kill an engine: whatever it reports, it runs.

use std::time::{Duration, Instant};

/// The commanded run state of a process. It only ever increases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RunCommand {
    /// Serve, and restart after a crash.
    Serve,
    /// Stop in order, within the drain timeout.
    Drain,
    /// Stop now.
    Kill,
}

/// Input of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The run command has changed.
    Command(RunCommand),
    /// The engine reported that it has not opened its listeners yet, for this reason.
    Starting(String),
    /// The engine reported that all its own parts work.
    Ready,
    /// The engine reported, but some of its own parts do not work, for this reason.
    Live(String),
    /// No report was received in time, for this reason.
    Unhealthy(String),
    /// The deadline of [`EngineState::deadline`] has passed.
    DeadlinePassed,
}

/// The action to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Do nothing.
    Wait,
    /// Report that the engine serves; with the reason if some of its own parts do not work.
    ReportServing(Option<String>),
    /// Send SIGTERM.
    Terminate,
    /// Send SIGKILL, for this reason.
    Kill(String),
}

/// The state of one engine process, from start to exit.
#[derive(Debug)]
pub(crate) struct EngineState {
    phase: Phase,
    drain_timeout: Duration,
    last_failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// `reports`: its listeners are open, and its last report was in time.
    Starting {
        deadline: Instant,
        reports: bool,
    },
    Serving {
        since: Instant,
        failures: u32,
    },
    Draining {
        served_for: Option<Duration>,
        deadline: Instant,
    },
    Killed {
        served_for: Option<Duration>,
    },
}

impl EngineState {
    /// A process started at `now`, whose drain may take `drain_timeout`.
    pub(crate) fn new(now: Instant, drain_timeout: Duration) -> Self {
        Self {
            phase: Phase::Starting { deadline: now + START_TIMEOUT, reports: false },
            drain_timeout,
            last_failure: "it has sent no report yet".to_owned(),
        }
    }

    /// Returns the action for `event`.
    pub(crate) fn apply(&mut self, event: Event, now: Instant) -> Action {
        let served_for = self.served_for(now);
        match (event, self.phase) {
            (_, Phase::Killed { .. }) | (Event::Command(RunCommand::Serve), _) => Action::Wait,
            (Event::Command(RunCommand::Drain), Phase::Starting { .. } | Phase::Serving { .. }) => {
                self.phase = Phase::Draining { served_for, deadline: now + self.drain_timeout + DRAIN_GRACE_PERIOD };
                Action::Terminate
            }
            (Event::Command(RunCommand::Kill), _) => self.kill(served_for, "was commanded to stop at once".to_owned()),
            (Event::Ready, Phase::Starting { .. }) => self.start_serving(now, None),
            (Event::Starting(reason), Phase::Starting { .. }) => {
                // It runs, and another process would wait for the same disk.
                self.phase = Phase::Starting { deadline: now + START_TIMEOUT, reports: false };
                self.last_failure = reason;
                Action::Wait
            }
            (Event::Ready | Event::Live(_), Phase::Serving { since, .. }) => {
                self.phase = Phase::Serving { since, failures: 0 };
                Action::Wait
            }
            (Event::Live(reason), Phase::Starting { deadline, .. }) => {
                self.phase = Phase::Starting { deadline, reports: true };
                self.last_failure = reason;
                Action::Wait
            }
            (Event::Unhealthy(reason), Phase::Starting { deadline, .. }) => {
                self.phase = Phase::Starting { deadline, reports: false };
                self.last_failure = reason;
                Action::Wait
            }
            (Event::Unhealthy(reason), Phase::Serving { since, failures }) => {
                self.phase = Phase::Serving { since, failures: failures + 1 };
                if failures + 1 < MAX_MISSED_REPORTS {
                    Action::Wait
                } else {
                    self.kill(served_for, format!("hangs: {reason}"))
                }
            }
            // It runs, and another process would meet the same conditions: not ready, but not
            // killed.
            (Event::DeadlinePassed, Phase::Starting { reports: true, .. }) => {
                let failure = std::mem::take(&mut self.last_failure);
                self.start_serving(now, Some(failure))
            }
            (Event::DeadlinePassed, Phase::Starting { reports: false, .. }) => {
                let reason = format!("was not ready within {} s: {}", START_TIMEOUT.as_secs(), self.last_failure);
                self.kill(served_for, reason)
            }
            (Event::DeadlinePassed, Phase::Draining { .. }) => {
                self.kill(served_for, "did not drain in time".to_owned())
            }
            _ => Action::Wait,
        }
    }

    fn start_serving(&mut self, now: Instant, failure: Option<String>) -> Action {
        self.phase = Phase::Serving { since: now, failures: 0 };
        Action::ReportServing(failure)
    }

    fn kill(&mut self, served_for: Option<Duration>, reason: String) -> Action {
        self.phase = Phase::Killed { served_for };
        Action::Kill(reason)
    }

    /// True while it must send reports; false once it is being stopped.
    pub(crate) fn is_supervised(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Serving { .. })
    }

    /// When [`Event::DeadlinePassed`] is due, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { deadline, .. } | Phase::Draining { deadline, .. } => Some(deadline),
            Phase::Serving { .. } | Phase::Killed { .. } => None,
        }
    }

    /// How long it had served at `now` or when it was stopped; `None` if it never did.
    pub(crate) fn served_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Starting { .. } => None,
            Phase::Serving { since, .. } => Some(now.saturating_duration_since(since)),
            Phase::Draining { served_for, .. } | Phase::Killed { served_for } => served_for,
        }
    }
}

/// From process start, or from the last report of an engine that has no open listeners yet, until
/// all parts of the engine work. An engine that waits for its disk reports so.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Added to the drain timeout, which the engine enforces itself.
const DRAIN_GRACE_PERIOD: Duration = Duration::from_secs(5);
/// Consecutive waits without a report, each of which the daemon has waited itself: a daemon that
/// was suspended does not blame its engine. About half a minute: killing an engine that is merely
/// starved of CPU would disconnect viewers for nothing.
const MAX_MISSED_REPORTS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
    const TEST_INTERVAL: Duration = Duration::from_secs(1);

    fn unhealthy() -> Event {
        Event::Unhealthy("no report".to_owned())
    }

    fn live() -> Event {
        Event::Live("rtmp: does not answer".to_owned())
    }

    #[test]
    fn engine_serves_from_ready_until_it_is_drained() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        assert_eq!((state.served_for(t), state.is_supervised()), (None, true));
        assert_eq!(state.apply(Event::Ready, t + TEST_INTERVAL), Action::ReportServing(None));
        assert_eq!((state.served_for(t + 4 * TEST_INTERVAL), state.deadline()), (Some(3 * TEST_INTERVAL), None));
        assert_eq!(state.apply(Event::Command(RunCommand::Drain), t + 4 * TEST_INTERVAL), Action::Terminate);
        assert!(!state.is_supervised());
        assert_eq!(state.served_for(t + 9 * TEST_INTERVAL), Some(3 * TEST_INTERVAL));
    }

    #[test]
    fn engine_that_sends_no_reports_is_killed_with_the_last_failure() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        state.apply(live(), t);
        state.apply(unhealthy(), t);
        assert_eq!(state.deadline(), Some(t + START_TIMEOUT));
        let expected = "was not ready within 30 s: no report".to_owned();
        assert_eq!(state.apply(Event::DeadlinePassed, t + START_TIMEOUT), Action::Kill(expected));
        assert_eq!(state.served_for(t + START_TIMEOUT), None);
    }

    #[test]
    fn engine_that_waits_for_its_disk_is_killed_only_if_it_stops_reporting() {
        let mut t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        for _ in 0..100 {
            t += TEST_INTERVAL;
            assert_eq!(state.apply(Event::Starting("waits for the disk".to_owned()), t), Action::Wait);
            assert_eq!((state.deadline(), state.served_for(t)), (Some(t + START_TIMEOUT), None));
        }
        assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        let killed = Action::Kill("was not ready within 30 s: no report".to_owned());
        assert_eq!(state.apply(Event::DeadlinePassed, t + START_TIMEOUT), killed);
        // The disk answers.
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        state.apply(Event::Starting("waits for the disk".to_owned()), t);
        assert_eq!(state.apply(Event::Ready, t + TEST_INTERVAL), Action::ReportServing(None));
    }

    #[test]
    fn engine_that_reports_is_never_killed_although_a_part_does_not_work() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        assert_eq!(state.apply(live(), t), Action::Wait);
        let expected = Action::ReportServing(Some("rtmp: does not answer".to_owned()));
        assert_eq!(state.apply(Event::DeadlinePassed, t + START_TIMEOUT), expected);
        for _ in 0..100 {
            assert_eq!(state.apply(live(), t + START_TIMEOUT), Action::Wait);
        }
        assert_eq!((state.deadline(), state.served_for(t + START_TIMEOUT)), (None, Some(Duration::ZERO)));
    }

    #[test]
    fn hanging_engine_is_killed_after_five_consecutive_failures() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        state.apply(Event::Ready, t);
        for _ in 0..4 {
            assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        }
        assert_eq!(state.apply(live(), t), Action::Wait); // just in time: the count starts again
        for _ in 0..4 {
            assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        }
        assert_eq!(state.apply(unhealthy(), t), Action::Kill("hangs: no report".to_owned()));
        assert_eq!(state.apply(unhealthy(), t), Action::Wait);
    }

    #[test]
    fn overlong_drain_and_kill_command_both_kill_the_engine() {
        let t = Instant::now();
        let draining = || {
            let mut state = EngineState::new(t, DRAIN_TIMEOUT);
            state.apply(Event::Ready, t);
            assert_eq!(state.apply(Event::Command(RunCommand::Drain), t), Action::Terminate);
            assert_eq!(state.deadline(), Some(t + DRAIN_TIMEOUT + DRAIN_GRACE_PERIOD));
            state
        };
        assert!(matches!(draining().apply(Event::DeadlinePassed, t), Action::Kill(_)));
        assert!(matches!(draining().apply(Event::Command(RunCommand::Kill), t), Action::Kill(_)));
        assert_eq!(draining().apply(unhealthy(), t), Action::Wait);
        assert_eq!(draining().apply(Event::Ready, t), Action::Wait);
    }

    #[test]
    fn engine_can_be_drained_before_it_is_ready() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        assert_eq!(state.apply(Event::Command(RunCommand::Drain), t), Action::Terminate);
        assert_eq!(state.served_for(t), None);
    }
}
