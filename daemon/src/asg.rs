//! An instance and its Auto Scaling group: the launching hook is let go when the node really serves, the terminating
//! hook is held while it drains, and scale-in is kept away while somebody publishes here. An instance in the warm pool is held by
//! nothing: it neither starts nor ends anything.
//!
//! Follows the node's state and decides nothing about it. What is refused is tried again until it is done or no longer
//! true; a node serves on without Auto Scaling.

use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::aws::{Aws, AwsError, GroupMember, Transition};
use crate::engine;
use crate::plan::Plan;

/// The node's state, as far as Auto Scaling is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ready yet.
    Starting,
    /// Its engine serves; the health listener is here.
    Serving(SocketAddr),
    /// Ready for sure, without an engine.
    Ready,
    /// Taking leave.
    Draining,
}

/// The group of this node, if it belongs to one.
#[derive(Debug)]
pub(crate) struct Group {
    member: Option<GroupMember>,
    /// True for a role that takes publishers.
    takes_publishers: bool,
}

impl Group {
    /// As the plan has it.
    pub(crate) async fn of(plan: &Plan) -> Self {
        let takes_publishers = matches!(plan.engine.node.role, Role::Origin | Role::Standalone);
        let member = match &plan.group {
            Some(group) => {
                let aws = Aws::in_region(&group.region).await;
                Some(GroupMember::new(&aws, &group.name, &group.instance))
            }
            None => None,
        };
        Self { member, takes_publishers }
    }

    /// Does what each state calls for. Never ends.
    pub(crate) async fn accompany(&self, mut states: watch::Receiver<State>) {
        let Some(member) = &self.member else { return std::future::pending().await };
        let mut done = Done::default();
        loop {
            let state = *states.borrow_and_update();
            let pause = match self.act(member, state, &mut done).await {
                Ok(pause) => pause,
                Err(e) => {
                    log::warn!(err:% = Chain(&e); "Auto Scaling refused, trying again");
                    Some(RETRY)
                }
            };
            let changed = async {
                // Nobody left to say anything: wait to be dropped.
                if states.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            // A change ends every pause early.
            match pause {
                None => changed.await,
                Some(pause) => drop(tokio::time::timeout(pause, changed).await),
            }
        }
    }

    /// What this state calls for, and when to look again if it does not change.
    async fn act(&self, member: &GroupMember, state: State, done: &mut Done) -> Result<Option<Duration>, AwsError> {
        match state {
            State::Starting => Ok(None),
            State::Serving(health) => {
                let status = engine::fetch_status(health).await;
                if !done.launch.is_over() {
                    // The engine serves, but what the registry says of the node counts too.
                    if !status.as_ref().is_some_and(|status| status.ready) {
                        return Ok(Some(SOON));
                    }
                    done.launch.on(pass(member, Transition::Launching).await?);
                }
                if !self.takes_publishers {
                    return Ok((!done.launch.is_over()).then_some(LOOK));
                }
                // An engine that does not answer now says nothing about its publishers.
                let busy = status.map(|status| status.load.streams > 0).filter(|busy| Some(*busy) != done.protected);
                if let Some(busy) = busy
                    && member.protect(busy).await?
                {
                    done.protected = Some(busy);
                    log::info!(protected = busy; "scale-in protection set");
                }
                Ok(Some(LOOK))
            }
            State::Ready => {
                if !done.launch.is_over() {
                    done.launch.on(pass(member, Transition::Launching).await?);
                }
                Ok((!done.launch.is_over()).then_some(LOOK))
            }
            State::Draining => {
                for hook in member.fetch_hooks(Transition::Terminating).await? {
                    member.hold(&hook).await?;
                }
                Ok(Some(HEARTBEAT))
            }
        }
    }

    /// Lets the terminating hook go: the node has drained. Bounded, because the machine is about to end.
    pub(crate) async fn leave(&self) {
        let Some(member) = &self.member else { return };
        let leaving = async {
            while let Err(e) = pass(member, Transition::Terminating).await {
                log::warn!(err:% = Chain(&e); "Auto Scaling refused, trying again");
                tokio::time::sleep(RETRY).await;
            }
        };
        if tokio::time::timeout(LEAVE_PATIENCE, leaving).await.is_err() {
            log::warn!("Auto Scaling was not told that this node has drained; the hook's own time-out ends it");
        }
    }
}

/// An instance that its group keeps warm, as far as hooks are concerned: on its way into the pool the launching ones hold it, on its way
/// back into the pool or out of it to its end the terminating ones.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// Where Auto Scaling wanted it to go when it was looked at last.
    target: String,
    passing: Passing,
    failing: bool,
}

impl Warm {
    /// Lets go whatever holds the instance on its way to `target` (`Warmed:…`). To be called again and again; asks AWS only until it is
    /// done.
    pub(crate) async fn let_go(&mut self, plan: &Plan, target: &str) {
        if self.target != target {
            (self.target, self.passing) = (target.to_owned(), Passing::default());
        }
        if self.passing.is_over() {
            return;
        }
        let Some(member) = Group::of(plan).await.member else { return };
        let passed = async {
            let (launching, terminating) =
                (pass(&member, Transition::Launching).await?, pass(&member, Transition::Terminating).await?);
            Ok::<_, AwsError>(launching.and(terminating))
        };
        match passed.await {
            Ok(passed) => {
                self.failing = false;
                self.passing.on(passed);
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failing, true) {
                    log::warn!(err:% = Chain(&e); "Auto Scaling refused, trying again");
                }
            }
        }
    }
}

/// What Auto Scaling has been told in this life of the daemon.
#[derive(Debug, Default)]
struct Done {
    launch: Passing,
    /// `None` at first: an earlier life may have left it either way.
    protected: Option<bool>,
}

/// How far it is with letting hooks go. An instance may come up before Auto Scaling begins to wait for it, so that no hook holds it yet: that
/// is believed when it has been said for a while.
#[derive(Debug, Default)]
struct Passing {
    tries: u32,
    over: bool,
}

impl Passing {
    fn on(&mut self, passed: Passed) {
        self.tries += 1;
        self.over = passed.hooks == 0 || passed.held > 0 || self.tries >= MAX_TRIES;
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

/// What came of letting hooks go: how many there are, and how many of them held the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passed {
    hooks: usize,
    held: usize,
}

impl Passed {
    fn and(self, other: Self) -> Self {
        Self { hooks: self.hooks + other.hooks, held: self.held + other.held }
    }
}

async fn pass(member: &GroupMember, transition: Transition) -> Result<Passed, AwsError> {
    let hooks = member.fetch_hooks(transition).await?;
    let mut passed = Passed { hooks: hooks.len(), held: 0 };
    for hook in hooks {
        if member.complete(&hook).await? {
            passed.held += 1;
            log::info!(hook = hook.as_str(); "lifecycle hook passed");
        }
    }
    Ok(passed)
}

/// Well below the shortest time-out a hook can have (30 s).
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between two counts of publishers.
const LOOK: Duration = Duration::from_secs(2);
/// Between two questions whether a node that has just come up is ready: asks nobody but its engine.
const SOON: Duration = Duration::from_millis(250);
/// Looks at hooks that hold nothing: a minute of them, or more.
const MAX_TRIES: u32 = 30;
const RETRY: Duration = Duration::from_secs(3);
/// For telling Auto Scaling at the end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_no_hook_holds_the_instance_is_believed_after_a_while_and_that_there_is_none_at_once() {
        let after = |answers: &[(usize, usize)]| {
            let mut passing = Passing::default();
            answers.iter().for_each(|(hooks, held)| passing.on(Passed { hooks: *hooks, held: *held }));
            passing.is_over()
        };
        assert!(!after(&[]) && after(&[(0, 0)]) && after(&[(1, 1)]) && after(&[(2, 1)]));
        assert!(!after(&[(1, 0); MAX_TRIES as usize - 1]) && after(&[(1, 0); MAX_TRIES as usize]));
        assert!(after(&[(1, 0), (1, 0), (1, 1)]));
    }
}
