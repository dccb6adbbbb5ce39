//! The state of an engine process, as a value: events go in, actions come out. Performs no I/O.
//!
//! ```text
//! Starting --ready--> Serving --drain--> Draining --ended-->
//!     |                  |                   |
//!     +--start too long--+--silent too long--+--drain too long--> Killed --ended-->
//! ```

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
    /// `/readyz` passed.
    Ready,
    /// `/livez` passed.
    Live,
    /// A probe failed, for this reason.
    Unhealthy(String),
    /// The deadline of [`EngineState::deadline`] has passed.
    DeadlinePassed,
}

/// The action to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Do nothing.
    Wait,
    /// Report that the engine serves.
    ReportServing,
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
    Starting { deadline: Instant },
    Serving { since: Instant, failures: u32 },
    Draining { served_for: Option<Duration>, deadline: Instant },
    Killed { served_for: Option<Duration> },
}

impl EngineState {
    /// A process started at `now`, whose drain may take `drain_timeout`.
    pub(crate) fn new(now: Instant, drain_timeout: Duration) -> Self {
        Self {
            phase: Phase::Starting { deadline: now + START_TIMEOUT },
            drain_timeout,
            last_failure: "no answer yet".to_owned(),
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
            (Event::Ready, Phase::Starting { .. }) => {
                self.phase = Phase::Serving { since: now, failures: 0 };
                Action::ReportServing
            }
            (Event::Ready | Event::Live, Phase::Serving { since, .. }) => {
                self.phase = Phase::Serving { since, failures: 0 };
                Action::Wait
            }
            (Event::Unhealthy(reason), Phase::Starting { .. }) => {
                self.last_failure = reason;
                Action::Wait
            }
            (Event::Unhealthy(reason), Phase::Serving { since, failures }) => {
                self.phase = Phase::Serving { since, failures: failures + 1 };
                if failures + 1 < MAX_PROBE_FAILURES {
                    Action::Wait
                } else {
                    self.kill(served_for, format!("hangs: {reason}"))
                }
            }
            (Event::DeadlinePassed, Phase::Starting { .. }) => {
                let reason = format!("was not ready within {} s: {}", START_TIMEOUT.as_secs(), self.last_failure);
                self.kill(served_for, reason)
            }
            (Event::DeadlinePassed, Phase::Draining { .. }) => {
                self.kill(served_for, "did not drain in time".to_owned())
            }
            _ => Action::Wait,
        }
    }

    fn kill(&mut self, served_for: Option<Duration>, reason: String) -> Action {
        self.phase = Phase::Killed { served_for };
        Action::Kill(reason)
    }

    /// True while its health must be probed; false once it is being stopped.
    pub(crate) fn is_probed(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Serving { .. })
    }

    /// True once it has been ready, until it is stopped.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving { .. })
    }

    /// When [`Event::DeadlinePassed`] is due, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting { deadline } | Phase::Draining { deadline, .. } => Some(deadline),
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

/// From process start to ready. Opening ports takes milliseconds; a registry or a disk may take
/// longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Added to the drain timeout, which the engine enforces itself.
const DRAIN_GRACE_PERIOD: Duration = Duration::from_secs(5);
/// Consecutive failures of `/livez`. With the interval and the probe timeout this is about half a
/// minute: killing an engine that is merely starved of CPU would disconnect viewers for nothing.
const MAX_PROBE_FAILURES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
    const TEST_INTERVAL: Duration = Duration::from_secs(1);

    fn unhealthy() -> Event {
        Event::Unhealthy("no answer".to_owned())
    }

    #[test]
    fn engine_serves_from_ready_until_it_is_drained() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        assert_eq!((state.served_for(t), state.is_serving()), (None, false));
        assert_eq!(state.apply(Event::Ready, t + TEST_INTERVAL), Action::ReportServing);
        assert_eq!((state.served_for(t + 4 * TEST_INTERVAL), state.deadline()), (Some(3 * TEST_INTERVAL), None));
        assert_eq!(state.apply(Event::Command(RunCommand::Drain), t + 4 * TEST_INTERVAL), Action::Terminate);
        assert!(!state.is_probed() && !state.is_serving());
        assert_eq!(state.served_for(t + 9 * TEST_INTERVAL), Some(3 * TEST_INTERVAL));
    }

    #[test]
    fn engine_that_does_not_become_ready_is_killed_with_the_last_failure() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        state.apply(Event::Unhealthy("rtmp: does not answer".to_owned()), t);
        assert_eq!(state.deadline(), Some(t + START_TIMEOUT));
        let expected = "was not ready within 30 s: rtmp: does not answer".to_owned();
        assert_eq!(state.apply(Event::DeadlinePassed, t + START_TIMEOUT), Action::Kill(expected));
        assert_eq!(state.served_for(t + START_TIMEOUT), None);
    }

    #[test]
    fn hanging_engine_is_killed_after_five_consecutive_failures() {
        let t = Instant::now();
        let mut state = EngineState::new(t, DRAIN_TIMEOUT);
        state.apply(Event::Ready, t);
        for _ in 0..4 {
            assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        }
        assert_eq!(state.apply(Event::Live, t), Action::Wait); // just in time: the count starts again
        for _ in 0..4 {
            assert_eq!(state.apply(unhealthy(), t), Action::Wait);
        }
        assert_eq!(state.apply(unhealthy(), t), Action::Kill("hangs: no answer".to_owned()));
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
