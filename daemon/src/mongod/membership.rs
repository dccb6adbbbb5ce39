//! Who forms the replica set of a cluster with whom: from what EC2 and the databases say, to the one step that this node takes
//! now. A pure function; it asks nobody and has no clock.
//!
//! ```text
//!          no peer has a set, all answer, we are the first       primary
//! Setless ---------------------------------------------> Member ---------> removes who is gone, takes in who is new,
//!    |                                                     ^                one at a time
//!    +--- a peer has a set: its primary takes us in -------+
//! ```
//!
//! Two sets in one cluster are worse than none, and so is a set without a majority: in doubt it waits, and says for what.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use headwater_registry::{Hello, MemberState};

/// A registry node of this cluster that has not ended, as EC2 lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Instance id.
    pub id: String,
    /// `host:port` of its database.
    pub host: String,
    /// EC2 says that it runs.
    pub running: bool,
    /// What its database says, if it answers.
    pub hello: Option<Hello>,
}

/// A member of the set, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// `host:port`.
    pub host: String,
    /// It counts for the majority.
    pub votes: bool,
    /// It answers the primary.
    pub answers: bool,
    /// It is the primary or a secondary.
    pub serves: bool,
    /// EC2 has not listed it for longer than [`GRACE`].
    pub gone: bool,
}

/// All that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Our instance id.
    pub us: String,
    /// How our database stands.
    pub state: MemberState,
    /// All registry nodes, this one included.
    pub peers: Vec<Peer>,
    /// The set, if we are its primary.
    pub members: Vec<Member>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: all is as it should be.
    Rest,
    /// Nothing yet, for this reason.
    Wait(String),
    /// Begin a set of this node alone; it takes in the others.
    Initiate,
    /// Take this host in.
    Add(String),
    /// Let go of this host.
    Remove(String),
}

/// Decides.
pub(crate) fn decide(view: &View) -> Step {
    let Some(us) = view.peers.iter().find(|peer| peer.id == view.us && peer.running) else {
        return Step::Wait("EC2 does not list this instance as a running registry node of its cluster".to_owned());
    };
    match view.state {
        MemberState::Alone => Step::Wait("the database was started without a replica set".to_owned()),
        MemberState::Busy | MemberState::Secondary => Step::Rest,
        MemberState::Setless => found(view, us),
        MemberState::Primary => keep(view, us),
    }
}

/// Whether to begin a set.
fn found(view: &View, us: &Peer) -> Step {
    let others = || view.peers.iter().filter(|peer| peer.id != us.id);
    if let Some(peer) = others().find(|peer| peer.hello.as_ref().is_some_and(|hello| hello.set.is_some())) {
        return Step::Wait(format!("waiting for the primary of {}'s replica set to take this node in", peer.id));
    }
    let ready = |peer: &&Peer| peer.running && peer.hello.as_ref().is_some_and(|h| h.state == MemberState::Setless);
    // It may be the one that has the data.
    if let Some(peer) = others().find(|peer| !ready(peer)) {
        return Step::Wait(format!("no replica set is begun before registry node {} ({}) answers", peer.id, peer.host));
    }
    match others().map(|peer| &peer.id).min() {
        Some(first) if *first < us.id => Step::Wait(format!("registry node {first} begins the replica set")),
        _ => Step::Initiate,
    }
}

/// What a primary changes about its set.
fn keep(view: &View, us: &Peer) -> Step {
    let voters = view.members.iter().filter(|member| member.votes).count();
    let answering = view.members.iter().filter(|member| member.votes && member.answers).count();
    // Who still answers is not gone, whatever its tags have become.
    let gone = view.members.iter().find(|member| member.gone && !member.answers && member.host != us.host);
    if let Some(member) = gone {
        let left = voters - usize::from(member.votes);
        return if is_majority(answering, left) {
            Step::Remove(member.host.clone())
        } else {
            Step::Wait(format!("{} is gone, but without it the replica set would have no majority", member.host))
        };
    }
    if let Some(member) = view.members.iter().find(|member| member.answers && !member.serves) {
        return Step::Wait(format!("member {} has not caught up yet", member.host));
    }
    let is_member = |peer: &&Peer| view.members.iter().any(|member| member.host == peer.host);
    let mut strangers = view.peers.iter().filter(|peer| peer.running && !is_member(peer));
    let state = |peer: &Peer| peer.hello.as_ref().map(|hello| hello.state);
    if let Some(peer) = strangers.clone().find(|peer| state(peer) == Some(MemberState::Setless)) {
        if voters >= MAX_VOTERS {
            return Step::Wait(format!("registry node {} is one too many: {MAX_VOTERS} can vote at most", peer.id));
        }
        // The newcomer answers; MongoDB counts its vote once it has caught up.
        return if is_majority(answering + 1, voters + 1) {
            Step::Add(peer.host.clone())
        } else {
            Step::Wait(format!("too few members answer to take registry node {} in", peer.id))
        };
    }
    match strangers.find(|peer| state(peer).is_some_and(|state| state != MemberState::Alone)) {
        Some(peer) => Step::Wait(format!("registry node {} is in another replica set: end one of the two", peer.id)),
        None => Step::Rest,
    }
}

fn is_majority(some: usize, of: usize) -> bool {
    2 * some > of
}

/// Since when members are not listed.
#[derive(Debug, Default)]
pub(crate) struct Absences(HashMap<String, Instant>);

impl Absences {
    /// EC2 has listed `here`; the set has these members.
    pub(crate) fn observe(&mut self, members: &[String], here: &[Peer], now: Instant) {
        self.0.retain(|host, _| members.contains(host));
        for host in members {
            if here.iter().any(|peer| peer.host == *host) {
                self.0.remove(host);
            } else {
                self.0.entry(host.clone()).or_insert(now);
            }
        }
    }

    /// True once a member has been away for longer than [`GRACE`].
    pub(crate) fn is_gone(&self, host: &str, now: Instant) -> bool {
        self.0.get(host).is_some_and(|since| now - *since > GRACE)
    }
}

/// How long nothing has spoken against beginning a set. One look is not enough: what EC2 lists is seconds behind, and a database
/// that has just started says that it has no set until it has read its own files.
#[derive(Debug, Default)]
pub(crate) struct Calm(Option<Instant>);

impl Calm {
    /// `step` was decided at `now`. True once it has been [`Step::Initiate`], and nothing else, for [`SETTLED`].
    pub(crate) fn lasts(&mut self, step: &Step, now: Instant) -> bool {
        if *step != Step::Initiate {
            self.0 = None;
            return false;
        }
        now - *self.0.get_or_insert(now) >= SETTLED
    }
}

/// Two answers of EC2 and what lies between them, on top of the time that a node takes to boot.
pub(crate) const SETTLED: Duration = Duration::from_secs(6);
/// Longer than EC2's lists are behind; shorter than the next instance of a rolling replacement takes to come up, since a member
/// that is lost and still counts may cost the majority when another one ends.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// MongoDB's limit.
const MAX_VOTERS: usize = 7;

#[cfg(test)]
#[path = "membership_test.rs"]
mod tests;
