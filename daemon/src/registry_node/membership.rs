//! Decides the membership of a cluster's replica set: from the state of EC2 and of the databases to
//! the one step that this node takes now. A pure function without I/O or clock.
//!
//! ```text
//! Uninitialized --- no peer has a set, all answer, this node is first ---> initiates a set
//!       |                                                                        |
//!       +---------- a peer has a set: its primary adds this node ----------> Member
//!
//! Primary: removes missing members, then adds new nodes, one at a time.
//! ```
//!
//! Two sets in one cluster are worse than none, and so is a set without a majority: in doubt the
//! decision is to wait, with a reason.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use headwater_registry::{Hello, MemberState};

/// A registry node of this cluster that is not terminated, as EC2 lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Instance id.
    pub id: String,
    /// `host:port` of its database.
    pub host: String,
    /// True if EC2 reports it as running.
    pub running: bool,
    /// The answer of its database; `None` without one.
    pub hello: Option<Hello>,
}

/// A member of the set, as seen by the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// `host:port`.
    pub host: String,
    /// True if it counts for the majority.
    pub votes: bool,
    /// True if the primary reaches it.
    pub reachable: bool,
    /// True if it is the primary or a secondary.
    pub serving: bool,
    /// True if EC2 has not listed it for longer than [`MISSING_GRACE_PERIOD`].
    pub missing: bool,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetView {
    /// Instance id of this node.
    pub own_id: String,
    /// State of this node's database.
    pub state: MemberState,
    /// All registry nodes, this one included.
    pub peers: Vec<Peer>,
    /// Members of the set, if this node is its primary; otherwise empty.
    pub members: Vec<Member>,
}

/// A step of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing to do.
    Idle,
    /// Wait, for this reason.
    Wait(String),
    /// Initiate a set with only this node; it adds the others later.
    Initiate,
    /// Add this host.
    Add(String),
    /// Remove this host.
    Remove(String),
}

/// Returns the step to take now.
pub(crate) fn next_step(view: &SetView) -> Step {
    let Some(own_peer) = view.peers.iter().find(|peer| peer.id == view.own_id && peer.running) else {
        return Step::Wait("EC2 does not list this instance as a running registry node of its cluster".to_owned());
    };
    match view.state {
        MemberState::Standalone => Step::Wait("the database was started without a replica set".to_owned()),
        MemberState::NotReady | MemberState::Secondary => Step::Idle,
        MemberState::Uninitialized => initiate_or_wait(view, own_peer),
        MemberState::Primary => adjust_members(view, own_peer),
    }
}

/// Decides whether to initiate a set.
fn initiate_or_wait(view: &SetView, own_peer: &Peer) -> Step {
    let others = || view.peers.iter().filter(|peer| peer.id != own_peer.id);
    if let Some(peer) = others().find(|peer| peer.hello.as_ref().is_some_and(|hello| hello.set.is_some())) {
        return Step::Wait(format!("waiting for the primary of {}'s replica set to add this node", peer.id));
    }
    let ready =
        |peer: &&Peer| peer.running && peer.hello.as_ref().is_some_and(|h| h.state == MemberState::Uninitialized);
    // It may be the one that holds the data.
    if let Some(peer) = others().find(|peer| !ready(peer)) {
        return Step::Wait(format!(
            "no replica set is initiated before registry node {} ({}) answers",
            peer.id, peer.host
        ));
    }
    match others().map(|peer| &peer.id).min() {
        Some(first) if *first < own_peer.id => Step::Wait(format!("registry node {first} initiates the replica set")),
        _ => Step::Initiate,
    }
}

/// Decides what a primary changes about its set.
fn adjust_members(view: &SetView, own_peer: &Peer) -> Step {
    let voters = view.members.iter().filter(|member| member.votes).count();
    let answering = view.members.iter().filter(|member| member.votes && member.reachable).count();
    // A member that still answers is not missing, whatever its tags are.
    let missing =
        view.members.iter().find(|member| member.missing && !member.reachable && member.host != own_peer.host);
    if let Some(member) = missing {
        let left = voters - usize::from(member.votes);
        return if is_majority(answering, left) {
            Step::Remove(member.host.clone())
        } else {
            Step::Wait(format!("{} is missing, but without it the replica set would have no majority", member.host))
        };
    }
    if let Some(member) = view.members.iter().find(|member| member.reachable && !member.serving) {
        return Step::Wait(format!("member {} has not caught up yet", member.host));
    }
    let is_member = |peer: &&Peer| view.members.iter().any(|member| member.host == peer.host);
    let mut outsiders = view.peers.iter().filter(|peer| peer.running && !is_member(peer));
    let state = |peer: &Peer| peer.hello.as_ref().map(|hello| hello.state);
    if let Some(peer) = outsiders.clone().find(|peer| state(peer) == Some(MemberState::Uninitialized)) {
        if voters >= MAX_VOTERS {
            return Step::Wait(format!("registry node {} is one too many: at most {MAX_VOTERS} can vote", peer.id));
        }
        // The new member answers; MongoDB counts its vote once it has caught up.
        return if is_majority(answering + 1, voters + 1) {
            Step::Add(peer.host.clone())
        } else {
            Step::Wait(format!("too few members answer to add registry node {}", peer.id))
        };
    }
    match outsiders.find(|peer| state(peer).is_some_and(|state| state != MemberState::Standalone)) {
        Some(peer) => Step::Wait(format!("registry node {} is in another replica set: end one of the two", peer.id)),
        None => Step::Idle,
    }
}

fn is_majority(count: usize, total: usize) -> bool {
    2 * count > total
}

/// When members were first missing from EC2's list.
#[derive(Debug, Default)]
pub(crate) struct MissingMembers(HashMap<String, Instant>);

impl MissingMembers {
    /// Records which of the set's `members` EC2 has not `listed`.
    pub(crate) fn observe(&mut self, members: &[String], listed: &[Peer], now: Instant) {
        self.0.retain(|host, _| members.contains(host));
        for host in members {
            if listed.iter().any(|peer| peer.host == *host) {
                self.0.remove(host);
            } else {
                self.0.entry(host.clone()).or_insert(now);
            }
        }
    }

    /// True once a member has been missing for longer than [`MISSING_GRACE_PERIOD`].
    pub(crate) fn is_missing(&self, host: &str, now: Instant) -> bool {
        self.0.get(host).is_some_and(|since| now - *since > MISSING_GRACE_PERIOD)
    }
}

/// How long [`Step::Initiate`] has been the decision without interruption. One poll is not enough:
/// EC2's list is seconds behind, and a database that has just started reports no set until it has
/// read its files.
#[derive(Debug, Default)]
pub(crate) struct StablePeriod(Option<Instant>);

impl StablePeriod {
    /// Records that `step` was decided at `now`. True once it has been [`Step::Initiate`] without
    /// interruption for [`MIN_STABLE_PERIOD`].
    pub(crate) fn observe(&mut self, step: &Step, now: Instant) -> bool {
        if *step != Step::Initiate {
            self.0 = None;
            return false;
        }
        now - *self.0.get_or_insert(now) >= MIN_STABLE_PERIOD
    }
}

/// Two updates of EC2's list, on top of the time that a node takes to boot.
pub(crate) const MIN_STABLE_PERIOD: Duration = Duration::from_secs(6);
/// Longer than the delay of EC2's list; shorter than the boot of the next instance in a rolling
/// replacement, since a lost member that still counts may cost the majority when another one stops.
pub(crate) const MISSING_GRACE_PERIOD: Duration = Duration::from_secs(20);
/// MongoDB's limit of voting members.
const MAX_VOTERS: usize = 7;

#[cfg(test)]
#[path = "membership_test.rs"]
mod tests;
