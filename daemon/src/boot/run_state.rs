//! What follows from each [`Action`] while a node serves: pure decisions, without waiting.
//!
//! ```text
//!   Serve --signal, notice, request, superseded--> Drain --second signal--> Kill
//! ```
//!
//! The command only ever increases; the tasks follow it through their channels.

use std::time::Instant;

use headwater_api::config::Listen;
use headwater_api::control::Endpoints;
use headwater_registry::DesiredState;
use tokio::sync::watch;

use crate::aws::lifecycle_hooks::LifecycleState;
use crate::boot::supervisor::Action;
use crate::process::engine::{EngineError, EngineEvent, RunCommand};
use crate::process::service_manager::ServiceManager;

/// The state of a serving node, and the channels that publish it.
pub(crate) struct RunState<'a> {
    pub(super) command_tx: watch::Sender<RunCommand>,
    pub(super) endpoints_tx: watch::Sender<Option<Endpoints>>,
    pub(super) lifecycle_tx: watch::Sender<LifecycleState>,
    pub(super) manager: &'a mut ServiceManager,
    pub(super) started: Instant,
    /// True if the instance stays in the warm pool after the drain.
    pub(super) to_warm_pool: bool,
}

impl RunState<'_> {
    /// The command that the engine follows.
    pub(crate) fn command(&self) -> RunCommand {
        *self.command_tx.borrow()
    }

    /// Applies one action. Returns the engine's result once it has stopped for good.
    pub(crate) fn apply(&mut self, action: Action) -> Option<Result<(), EngineError>> {
        let serving = self.command() == RunCommand::Serve;
        match action {
            Action::EngineStopped(result) => return Some(result),
            Action::Signal(signal) => {
                let command = on_signal(signal, self.command(), self.manager);
                self.command_tx.send_replace(command);
            }
            Action::Superseded(reason) if serving => {
                log::error!(err = reason.as_str(); "another incarnation of this node has taken over, draining");
                self.command_tx.send_replace(RunCommand::Drain);
            }
            Action::Terminating(notice) if serving => {
                log::info!(err = notice.reason.as_str(); "draining");
                self.to_warm_pool = notice.to_warm_pool;
                self.manager.draining(self.to_warm_pool);
                self.lifecycle_tx.send_replace(LifecycleState::Draining);
                self.command_tx.send_replace(RunCommand::Drain);
            }
            Action::Desired(DesiredState::Drain) if serving => {
                log::info!("draining: requested by an administrator");
                self.manager.stopping("draining");
                self.command_tx.send_replace(RunCommand::Drain);
            }
            Action::Engine(event) => self.on_engine_event(event, serving),
            Action::Superseded(_) | Action::Terminating(_) | Action::Desired(_) => {}
        }
        None
    }

    fn on_engine_event(&mut self, event: Option<EngineEvent>, serving: bool) {
        let (endpoints, exited) = match event {
            Some(EngineEvent::Serving(endpoints)) => (Some(*endpoints), None),
            Some(EngineEvent::Exited(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        self.endpoints_tx.send_replace(endpoints.clone());
        if let Some(at) = endpoints {
            if serving {
                self.lifecycle_tx.send_replace(LifecycleState::Serving(at.health));
            }
            let elapsed_ms = self.started.elapsed().as_millis();
            let [http, https, rtmp] = [at.http, at.https, at.rtmp].map(Listen::from);
            log::info!(elapsed_ms, http:%, https:%, rtmp:%; "node ready");
            self.manager.serving(&format!("serving: http {http}, https {https}, rtmp {rtmp}"));
        }
        if let Some(reason) = exited {
            self.manager.status(&format!("restarting the engine: {reason}"));
        }
    }

    /// Reports to the service manager that the node is about to deregister.
    pub(crate) fn report_leaving(&self) {
        match self.to_warm_pool {
            true => self.manager.status("leaving the registry"),
            false => self.manager.stopping("leaving the registry"),
        }
    }

    /// True if Auto Scaling or EC2 caused the drain, so that a lifecycle hook may be waiting.
    pub(crate) fn is_draining_for_group(&self) -> bool {
        *self.lifecycle_tx.borrow() == LifecycleState::Draining
    }
}

/// Returns the run command after `signal`, given the `previous` one.
pub(crate) fn on_signal(signal: RunCommand, previous: RunCommand, manager: &ServiceManager) -> RunCommand {
    match (signal, previous) {
        (RunCommand::Kill, _) => log::warn!("second signal, stopping at once"),
        (_, RunCommand::Serve) => {
            log::info!("draining; a second signal stops at once");
            manager.stopping("draining");
        }
        _ => log::info!("already draining; a second signal stops at once"),
    }
    previous.max(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::termination::TerminationReason;

    fn state(manager: &mut ServiceManager) -> RunState<'_> {
        RunState {
            command_tx: watch::channel(RunCommand::Serve).0,
            endpoints_tx: watch::channel(None).0,
            lifecycle_tx: watch::channel(LifecycleState::Starting).0,
            manager,
            started: Instant::now(),
            to_warm_pool: false,
        }
    }

    fn notice(to_warm_pool: bool) -> Action {
        Action::Terminating(TerminationReason { reason: "scale-in".to_owned(), to_warm_pool })
    }

    #[test]
    fn every_reason_to_stop_drains_the_node_once() {
        for (action, for_group) in [
            (Action::Signal(RunCommand::Drain), false),
            (Action::Superseded("later".to_owned()), false),
            (Action::Desired(DesiredState::Drain), false),
            (notice(false), true),
        ] {
            let mut manager = ServiceManager::new();
            let mut state = state(&mut manager);
            assert!(state.apply(action).is_none());
            assert_eq!(state.command(), RunCommand::Drain);
            assert_eq!(state.is_draining_for_group(), for_group);
        }
    }

    #[test]
    fn only_a_second_signal_stops_a_draining_node_at_once() {
        let mut manager = ServiceManager::new();
        let mut state = state(&mut manager);
        state.apply(notice(true));
        state.apply(Action::Signal(RunCommand::Drain));
        assert_eq!(state.command(), RunCommand::Drain);
        assert!(state.to_warm_pool);
        state.apply(Action::Signal(RunCommand::Kill));
        assert_eq!(state.command(), RunCommand::Kill);
        state.apply(Action::Superseded("later".to_owned()));
        assert_eq!(state.command(), RunCommand::Kill, "the command never decreases");
    }

    #[test]
    fn notice_during_a_drain_does_not_change_its_reason() {
        let mut manager = ServiceManager::new();
        let mut state = state(&mut manager);
        state.apply(Action::Signal(RunCommand::Drain));
        state.apply(notice(true));
        assert!(!state.to_warm_pool && !state.is_draining_for_group());
    }

    #[test]
    fn engine_that_exits_withdraws_its_endpoints() {
        let mut manager = ServiceManager::new();
        let mut state = state(&mut manager);
        let endpoints = Endpoints {
            pid: 1,
            http: Some(([127, 0, 0, 1], 5080).into()),
            https: None,
            self_signed_fingerprint: None,
            rtmp: Some(([127, 0, 0, 1], 1935).into()),
            rtmps: None,
            relay: None,
            webrtc: Vec::new(),
            health: ([127, 0, 0, 1], 5090).into(),
        };
        state.apply(Action::Engine(Some(EngineEvent::Serving(Box::new(endpoints.clone())))));
        assert_eq!(state.endpoints_tx.borrow().as_ref(), Some(&endpoints));
        assert_eq!(*state.lifecycle_tx.borrow(), LifecycleState::Serving(endpoints.health));
        state.apply(Action::Engine(Some(EngineEvent::Exited("killed".to_owned()))));
        assert_eq!(*state.endpoints_tx.borrow(), None);
        assert!(state.apply(Action::EngineStopped(Ok(()))).is_some());
    }
}
