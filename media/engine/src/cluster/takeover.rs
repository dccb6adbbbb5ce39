//! Decides whether another node has lost a stream whose publisher has arrived here. The owner
//! itself is probed; if it does not answer, the nodes that watch the stream are the witnesses.
//!
//! ```text
//!   publisher arrives, name taken --> probe of the owner --(answer)--> the answer decides
//!      | no answer for WITNESS_DELAY                   |
//!      v                                               | no answer at all
//!   witnesses asked --(one has received from the owner since)--> kept by the owner
//!      ^     |--(there are none)-----------------------------+-> kept until the lease expires
//!      |     |--(none has received for OWNER_TIMEOUT)--------+-> lost
//!      '-----'  (the last sign of life is more recent)
//! ```
//!
//! Must not know how a witness is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::documents::{NodeRecord, StreamRecord};
use headwater_registry::{Peers, Registry};
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use super::member::Cluster;
use crate::gateway::relay::Ownership;
use crate::runtime::worker_pool::spawn_shared;

/// An owner from which no witness has received a frame or a heartbeat for this duration has lost
/// the stream, if it does not answer a probe either. A living owner sends one at least every
/// second.
const OWNER_TIMEOUT: Duration = Duration::from_secs(2);
/// If the owner has not answered the probe after this duration, witnesses are asked too. A living
/// owner answers within milliseconds.
const WITNESS_DELAY: Duration = Duration::from_millis(200);
/// Pause between two questions to the same witnesses.
const MIN_ASK_INTERVAL: Duration = Duration::from_millis(500);
const MAX_ASK_INTERVAL: Duration = Duration::from_secs(1);
/// No question is asked later than this after the arrival of the publisher, which waits.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// More nodes may watch a stream. A random selection of them is asked.
const MAX_WITNESSES: usize = 32;

/// A stream that its owner has lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LostStream {
    /// The relays of the nodes that were asked, which pull the stream and must resolve it again.
    pub(super) watching: Vec<Vec<SocketAddr>>,
}

/// What the witnesses prove.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A witness has received from the owner since the publisher arrived.
    OwnerLives,
    /// No witness has received from the owner for [`OWNER_TIMEOUT`].
    OwnerLost,
    /// No node watches the stream, or none answers.
    NoWitness,
    /// The owner was alive shortly before the publisher arrived: ask again after this duration.
    TooEarly(Duration),
}

impl Verdict {
    /// `silences` are the answers of the witnesses; `since_arrival` is the time from the arrival of
    /// the publisher to the question.
    fn new(silences: &[Duration], since_arrival: Duration) -> Self {
        match silences.iter().min() {
            None => Self::NoWitness,
            Some(shortest) if *shortest >= OWNER_TIMEOUT => Self::OwnerLost,
            Some(shortest) if *shortest < since_arrival => Self::OwnerLives,
            Some(shortest) => Self::TooEarly((OWNER_TIMEOUT - *shortest).clamp(MIN_ASK_INTERVAL, MAX_ASK_INTERVAL)),
        }
    }
}

impl<R: Registry + std::fmt::Debug + 'static> Cluster<R> {
    /// Returns `None` if the owner in `record` may still have the stream. Ends within five seconds.
    pub(super) async fn find_lost_stream(&self, record: &StreamRecord) -> Option<LostStream> {
        let (name, arrived) = (&record.claim.name, Instant::now());
        let mut probe = self.0.ownership_probe.probe(&record.offer.relay, name);
        let early = tokio::time::timeout(WITNESS_DELAY, &mut probe).await.ok();
        if let Some(answer) = early.filter(|ownership| *ownership != Ownership::NoAnswer) {
            return lost_if_denied(answer);
        }
        let probed = async {
            match if early.is_some() { Ownership::NoAnswer } else { probe.await } {
                Ownership::NoAnswer => Ok(()),
                answer => Err(lost_if_denied(answer)),
            }
        };
        if !self.0.witness_rounds.begin(name, arrived) {
            log::debug!(stream = name.as_str(); "owner does not answer, witnesses were asked a moment ago");
            return probed.await.err().flatten();
        }
        let watching = self.watching_nodes(record).await;
        let witnessed = async {
            match self.question(record, &watching, arrived).await {
                Verdict::OwnerLives => Err(None),
                verdict => Ok(verdict),
            }
        };
        match tokio::try_join!(witnessed, probed) {
            Ok((verdict, ())) => lost_if_proved(record, &verdict, watching),
            Err(decided) => decided,
        }
    }

    /// Asks the nodes until their answers are conclusive.
    async fn question(&self, record: &StreamRecord, watching: &[Vec<SocketAddr>], arrived: Instant) -> Verdict {
        let claim = &record.claim;
        loop {
            let asked = arrived.elapsed();
            let silences = self.0.ownership_probe.ask_witnesses(watching, &claim.name, &claim.owner).await;
            match Verdict::new(&silences, asked) {
                Verdict::TooEarly(delay) if arrived.elapsed() + delay <= ASK_TIMEOUT => {
                    tokio::time::sleep(delay).await;
                }
                verdict => return verdict,
            }
        }
    }

    /// The relays of the nodes that may watch the stream, at most [`MAX_WITNESSES`] of them and
    /// this node: those with viewers according to their last heartbeat, and the edges of both
    /// groups, some of which may have begun to watch since.
    async fn watching_nodes(&self, record: &StreamRecord) -> Vec<Vec<SocketAddr>> {
        let (this, owner) = (&self.0.identity, &record.claim.owner.node);
        let (listed, edges) = tokio::join!(
            tokio::time::timeout(LIST_TIMEOUT, self.0.registry.peers(Peers::Watching(&record.claim.name))),
            tokio::time::timeout(LIST_TIMEOUT, self.edges_near(owner)),
        );
        let mut listed = listed.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
        let mut edges = edges.unwrap_or_default();
        listed.shuffle(&mut rand::rng());
        edges.shuffle(&mut rand::rng());
        let mut relays: HashMap<String, Vec<SocketAddr>> = HashMap::new();
        for NodeRecord { node, alive, .. } in listed.into_iter().chain(edges) {
            let is_other = node.id != this.incarnation.node && node.id != *owner;
            if alive && is_other && !node.relay.is_empty() && relays.len() < MAX_WITNESSES {
                relays.insert(node.id, node.relay);
            }
        }
        relays.into_values().chain([this.relays.clone()]).collect()
    }

    /// Informs these nodes in the background that this node owns the stream now.
    pub(super) fn announce_move(&self, name: &StreamName, watching: Vec<Vec<SocketAddr>>) {
        if watching.is_empty() {
            return;
        }
        let (cluster, name) = (self.clone(), name.clone());
        spawn_shared(async move { cluster.0.ownership_probe.announce_move(&watching, &name).await });
    }
}

/// The owner answers: it has the stream or not.
fn lost_if_denied(answer: Ownership) -> Option<LostStream> {
    (answer == Ownership::NotHeld).then(|| LostStream { watching: Vec::new() })
}

/// The owner does not answer.
fn lost_if_proved(record: &StreamRecord, verdict: &Verdict, watching: Vec<Vec<SocketAddr>>) -> Option<LostStream> {
    let (stream, node) = (record.claim.name.as_str(), record.claim.owner.node.as_str());
    log::info!(stream, node, verdict:?; "owner does not answer, witnesses asked");
    (*verdict == Verdict::OwnerLost).then_some(LostStream { watching })
}

/// For each of the two lists of nodes, while a publisher waits.
const LIST_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_witness_that_received_from_the_owner_since_the_arrival_keeps_it() {
        let check = |silences: &[u64], since_arrival, expected| {
            let silences: Vec<_> = silences.iter().map(|silence| ms(*silence)).collect();
            assert_eq!(Verdict::new(&silences, ms(since_arrival)), expected, "{silences:?} after {since_arrival} ms");
        };
        check(&[], 200, Verdict::NoWitness);
        check(&[2_000, 90_000], 200, Verdict::OwnerLost);
        check(&[199, 90_000], 200, Verdict::OwnerLives);
        check(&[1_999, 5_000], 2_200, Verdict::OwnerLives);
        check(&[1_200, 5_000], 200, Verdict::TooEarly(ms(800)));
        check(&[1_900], 200, Verdict::TooEarly(MIN_ASK_INTERVAL));
        check(&[200], 200, Verdict::TooEarly(MAX_ASK_INTERVAL));
    }
}
