//! An instance and its Auto Scaling group: the launching hook is let go when the node really serves, the terminating
//! hook is held while it drains, and scale-in is kept away while somebody publishes here.
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
                if !done.launched {
                    // The engine serves, but what the registry says of the node counts too.
                    if !engine::fetch_status(health).await.is_some_and(|status| status.ready) {
                        return Ok(Some(LOOK));
                    }
                    pass(member, Transition::Launching).await?;
                    done.launched = true;
                }
                if !self.takes_publishers {
                    return Ok(None);
                }
                // An engine that does not answer now says nothing about its publishers.
                let busy = engine::fetch_status(health).await.map_or(done.protected, |status| status.load.streams > 0);
                if busy != done.protected {
                    member.protect(busy).await?;
                    done.protected = busy;
                    log::info!(protected = busy; "scale-in protection changed");
                }
                Ok(Some(LOOK))
            }
            State::Ready => {
                if !done.launched {
                    pass(member, Transition::Launching).await?;
                    done.launched = true;
                }
                Ok(None)
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

/// What Auto Scaling has been told.
#[derive(Debug, Default)]
struct Done {
    launched: bool,
    protected: bool,
}

async fn pass(member: &GroupMember, transition: Transition) -> Result<(), AwsError> {
    for hook in member.fetch_hooks(transition).await? {
        if member.complete(&hook).await? {
            log::info!(hook = hook.as_str(); "lifecycle hook passed");
        }
    }
    Ok(())
}

/// Well below the shortest time-out a hook can have (30 s).
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between two counts of publishers.
const LOOK: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(3);
/// For telling Auto Scaling at the end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
