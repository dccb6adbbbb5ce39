//! The instance's part in its Auto Scaling group: completes the launching hook once the node
//! serves, extends the terminating hook while it drains, and enables scale-in protection while
//! streams are published here. An instance in the warm pool completes every hook at once.
//!
//! Follows the node's state and makes no decisions about it. A refused request is retried until it
//! succeeds or is obsolete; the node serves without Auto Scaling.

use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::aws::client::{Aws, AwsError, GroupMember, Transition};
use crate::boot::plan::Plan;
use crate::process::engine;

/// The node's state, as far as Auto Scaling is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifecycleState {
    /// Not ready yet.
    Starting,
    /// The engine serves; this is its health listener.
    Serving(SocketAddr),
    /// Ready, on a node without an engine.
    Ready,
    /// Draining.
    Draining,
}

/// The Auto Scaling group of this node, if it belongs to one.
#[derive(Debug)]
pub(crate) struct ScalingGroup {
    member: Option<GroupMember>,
    /// True for a role that accepts publishers.
    accepts_publishers: bool,
}

impl ScalingGroup {
    /// The group that the plan names.
    pub(crate) async fn from_plan(plan: &Plan) -> Self {
        let takes_publishers = matches!(plan.engine.node.role, Role::Origin | Role::Standalone);
        let member = match &plan.scaling_group {
            Some(group) => {
                let aws = Aws::in_region(&group.region).await;
                Some(GroupMember::new(&aws, &group.name, &group.instance))
            }
            None => None,
        };
        Self { member, accepts_publishers: takes_publishers }
    }

    /// Performs the requests of each state. Never returns.
    pub(crate) async fn run(&self, mut state_rx: watch::Receiver<LifecycleState>) {
        let Some(member) = &self.member else { return std::future::pending().await };
        let mut progress = Progress::default();
        loop {
            let state = *state_rx.borrow_and_update();
            let pause = match self.on_state(member, state, &mut progress).await {
                Ok(pause) => pause,
                Err(e) => {
                    log::warn!(err:% = Chain(&e); "Auto Scaling request failed, retrying");
                    Some(RETRY_INTERVAL)
                }
            };
            let changed = async {
                // The sender is dropped: wait to be dropped too.
                if state_rx.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            // A state change ends the pause early.
            match pause {
                None => changed.await,
                Some(pause) => drop(tokio::time::timeout(pause, changed).await),
            }
        }
    }

    /// Performs the requests of `state`. Returns when to repeat if it does not change; `None`:
    /// never.
    async fn on_state(
        &self,
        member: &GroupMember,
        state: LifecycleState,
        progress: &mut Progress,
    ) -> Result<Option<Duration>, AwsError> {
        match state {
            LifecycleState::Starting => Ok(None),
            LifecycleState::Serving(health) => {
                let status = engine::fetch_status(health).await;
                if !progress.launch.is_complete() {
                    // Readiness also depends on the node's registration.
                    if !status.as_ref().is_some_and(|status| status.ready) {
                        return Ok(Some(READY_POLL_INTERVAL));
                    }
                    progress.launch.record(complete_hooks(member, Transition::Launching).await?);
                }
                if !self.accepts_publishers {
                    return Ok((!progress.launch.is_complete()).then_some(POLL_INTERVAL));
                }
                // An engine that does not answer gives no information about its publishers.
                let busy =
                    status.map(|status| status.load.streams > 0).filter(|busy| Some(*busy) != progress.protected);
                if let Some(busy) = busy
                    && member.set_protection(busy).await?
                {
                    progress.protected = Some(busy);
                    log::info!(protected = busy; "scale-in protection set");
                }
                Ok(Some(POLL_INTERVAL))
            }
            LifecycleState::Ready => {
                if !progress.launch.is_complete() {
                    progress.launch.record(complete_hooks(member, Transition::Launching).await?);
                }
                Ok((!progress.launch.is_complete()).then_some(POLL_INTERVAL))
            }
            LifecycleState::Draining => {
                for hook in member.fetch_hooks(Transition::Terminating).await? {
                    member.send_hook_heartbeat(&hook).await?;
                }
                Ok(Some(HOOK_HEARTBEAT_INTERVAL))
            }
        }
    }

    /// Completes the terminating hook after the drain. Bounded, because the instance is about to
    /// stop.
    pub(crate) async fn complete_termination(&self) {
        let Some(member) = &self.member else { return };
        let completing = async {
            while let Err(e) = complete_hooks(member, Transition::Terminating).await {
                log::warn!(err:% = Chain(&e); "Auto Scaling request failed, retrying");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        };
        if tokio::time::timeout(COMPLETE_TIMEOUT, completing).await.is_err() {
            log::warn!("could not complete the terminating hook in time; it ends with its own timeout");
        }
    }
}

/// Hooks of an instance in the warm pool: the launching hooks hold it on its way into the pool, the
/// terminating hooks on its way back into the pool or out of it.
#[derive(Debug, Default)]
pub(crate) struct WarmInstance {
    /// Target lifecycle state at the last call.
    target: String,
    progress: HookProgress,
    failing: bool,
}

impl WarmInstance {
    /// Completes all hooks that hold the instance on its way to `target` (`Warmed:…`). Call it
    /// repeatedly; it sends requests only until the hooks are complete.
    pub(crate) async fn complete_hooks(&mut self, plan: &Plan, target: &str) {
        if self.target != target {
            (self.target, self.progress) = (target.to_owned(), HookProgress::default());
        }
        if self.progress.is_complete() {
            return;
        }
        let Some(member) = ScalingGroup::from_plan(plan).await.member else { return };
        let outcome = async {
            let (launching, terminating) = (
                complete_hooks(&member, Transition::Launching).await?,
                complete_hooks(&member, Transition::Terminating).await?,
            );
            Ok::<_, AwsError>(launching.combined(terminating))
        };
        match outcome.await {
            Ok(outcome) => {
                self.failing = false;
                self.progress.record(outcome);
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failing, true) {
                    log::warn!(err:% = Chain(&e); "Auto Scaling request failed, retrying");
                }
            }
        }
    }
}

/// What this incarnation has already done.
#[derive(Debug, Default)]
struct Progress {
    launch: HookProgress,
    /// `None` at first: an earlier incarnation may have left it either way.
    protected: Option<bool>,
}

/// Progress of completing hooks. An instance may boot before Auto Scaling activates its hook, so
/// "not active" is accepted only after [`MAX_ATTEMPTS`].
#[derive(Debug, Default)]
struct HookProgress {
    attempts: u32,
    complete: bool,
}

impl HookProgress {
    fn record(&mut self, outcome: HookOutcome) {
        self.attempts += 1;
        self.complete = outcome.hooks == 0 || outcome.completed > 0 || self.attempts >= MAX_ATTEMPTS;
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}

/// Number of hooks, and how many of them were active and are now completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HookOutcome {
    hooks: usize,
    completed: usize,
}

impl HookOutcome {
    fn combined(self, other: Self) -> Self {
        Self { hooks: self.hooks + other.hooks, completed: self.completed + other.completed }
    }
}

async fn complete_hooks(member: &GroupMember, transition: Transition) -> Result<HookOutcome, AwsError> {
    let hooks = member.fetch_hooks(transition).await?;
    let mut outcome = HookOutcome { hooks: hooks.len(), completed: 0 };
    for hook in hooks {
        if member.complete_hook(&hook).await? {
            outcome.completed += 1;
            log::info!(hook = hook.as_str(); "lifecycle hook completed");
        }
    }
    Ok(outcome)
}

/// Well below the shortest timeout that a hook can have (30 s).
const HOOK_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Interval between two polls of the number of publishers.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between two readiness polls of the engine after the start.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Attempts on hooks that are not active: at least one minute.
const MAX_ATTEMPTS: u32 = 30;
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Limit for completing the hooks at the end.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inactive_hooks_are_retried_and_missing_hooks_complete_at_once() {
        let after = |answers: &[(usize, usize)]| {
            let mut progress = HookProgress::default();
            answers.iter().for_each(|(hooks, held)| progress.record(HookOutcome { hooks: *hooks, completed: *held }));
            progress.is_complete()
        };
        assert!(!after(&[]) && after(&[(0, 0)]) && after(&[(1, 1)]) && after(&[(2, 1)]));
        assert!(!after(&[(1, 0); MAX_ATTEMPTS as usize - 1]) && after(&[(1, 0); MAX_ATTEMPTS as usize]));
        assert!(after(&[(1, 0), (1, 0), (1, 1)]));
    }
}
