//! Waits for whatever happens next while the node serves or drains. Decides nothing: see
//! [`super::run_state`].

use std::pin::Pin;

use headwater_registry::DesiredState;
use tokio::sync::watch;

use crate::aws::termination::TerminationReason;
use crate::boot::registration;
use crate::process::engine::{EngineError, EngineEvent, RunCommand};
use crate::process::service_manager::Signals;

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Action {
    /// The engine has stopped for good.
    EngineStopped(Result<(), EngineError>),
    /// A signal requests this command.
    Signal(RunCommand),
    /// A later incarnation of this node has registered, for this reason.
    Superseded(String),
    /// Auto Scaling or EC2 is about to stop the instance.
    Terminating(TerminationReason),
    /// An administrator has requested this state.
    Desired(DesiredState),
    /// The state of the engine has changed.
    Engine(Option<EngineEvent>),
}

type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The tasks of a serving node, driven by [`Supervisor::next`].
pub(crate) struct Supervisor<'a> {
    pub(super) engine_run: Task<'a, Result<(), EngineError>>,
    /// The heartbeat; `None` once it has ended. It also runs during a drain, which it reports.
    pub(super) superseded: Option<Task<'a, String>>,
    pub(super) termination: Task<'a, TerminationReason>,
    /// Tasks that only follow the others; `None` once all of them have ended.
    pub(super) followers: Option<Task<'a, ()>>,
    pub(super) event_rx: watch::Receiver<Option<EngineEvent>>,
    pub(super) desired_state_rx: watch::Receiver<DesiredState>,
    pub(super) write_pending_rx: watch::Receiver<bool>,
}

impl Supervisor<'_> {
    /// Waits for the next action. Once `command` is no longer [`RunCommand::Serve`], notices to
    /// terminate and requests of administrators are ignored: the node is draining already.
    pub(crate) async fn next(&mut self, signals: &mut Signals, command: RunCommand) -> Action {
        let serving = command == RunCommand::Serve;
        loop {
            tokio::select! {
                result = &mut self.engine_run => return Action::EngineStopped(result),
                signal = signals.next() => return Action::Signal(signal),
                reason = ended(&mut self.superseded) => {
                    self.superseded = None;
                    return Action::Superseded(reason);
                }
                reason = &mut self.termination, if serving => return Action::Terminating(reason),
                Ok(()) = self.desired_state_rx.changed(), if serving => {
                    return Action::Desired(*self.desired_state_rx.borrow_and_update());
                }
                Ok(()) = self.event_rx.changed() => {
                    return Action::Engine(self.event_rx.borrow_and_update().clone());
                }
                () = ended(&mut self.followers) => self.followers = None,
            }
        }
    }

    /// Waits until no heartbeat is in flight: one that arrived after the deregistration would
    /// register the node again.
    pub(crate) async fn finish_heartbeat(&mut self) {
        tokio::select! {
            _ = ended(&mut self.superseded) => {}
            _ = self.write_pending_rx.wait_for(|pending| !pending) => {}
            () = tokio::time::sleep(registration::DEREGISTER_TIMEOUT) => {}
        }
    }
}

/// The result of a task. Never resolves for one that has ended.
async fn ended<T>(task: &mut Option<Task<'_, T>>) -> T {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
