//! Tests of takeovers from an owner that does not answer: witnesses decide.

use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::documents::{Heartbeat, StreamViewers};
use headwater_registry::{Embedded, Nodes as _, Streams as _, Timing};

use super::cluster_test::{FakeProbe, TempFolder, name, node_on, register, unreachable_registry};
use super::member::Cluster;
use crate::gateway::relay::Ownership;
use crate::hub::{Hub, Producer, PublishError};

/// A lease that no test outlasts.
fn long_lease() -> Timing {
    Timing { lease: Duration::from_secs(600), ..Timing::default() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Node `a` owns the stream and does not answer; node `bb` gets its publisher.
struct FrozenOwner {
    producer: Producer,
    cluster: Cluster<Embedded>,
    hub: Hub,
    probe: FakeProbe,
    registry: Embedded,
    _folder: TempFolder,
}

async fn frozen_owner(test: &str, silences: &[&[Duration]]) -> FrozenOwner {
    let folder = TempFolder::new(test);
    let registry = Embedded::open_with(&folder.0, long_lease()).unwrap();
    let (owner_hub, cluster, _) = node_on(&registry, "a", Ownership::Held);
    let producer = owner_hub.publish_owned(&name(), "rtmp").await.unwrap();
    let (hub, _, probe) = node_on(&registry, "bb", Ownership::NoAnswer);
    probe.answers().silences = silences.iter().map(|silences| silences.to_vec()).collect();
    FrozenOwner { producer, cluster, hub, probe, registry, _folder: folder }
}

impl FrozenOwner {
    /// The id of the node that owns the stream, and the epoch of its claim.
    async fn owner(&self) -> (String, u64) {
        let claim = self.registry.stream(&name()).await.unwrap().unwrap().claim;
        (claim.owner.node, claim.epoch)
    }

    async fn publish(&self) -> Result<Producer, PublishError> {
        self.hub.publish_owned(&name(), "rtmp").await
    }

    async fn assert_kept(&self, why: &str) {
        let before = self.owner().await;
        let refused = self.publish().await.err();
        assert_eq!(refused, Some(PublishError::LiveOnOtherNode { name: name(), node: "a".to_owned() }), "{why}");
        assert_eq!(self.owner().await, before, "{why}");
        self.cluster.renew_all().await.unwrap();
        assert!(!self.producer.is_revoked(), "{why}");
    }
}

#[tokio::test]
async fn silent_owner_loses_its_name_if_no_witness_has_received_from_it() {
    let frozen = frozen_owner("lost", &[&[ms(2_000), ms(9_000)]]).await;
    let (_, first_epoch) = frozen.owner().await;
    let next = frozen.publish().await.expect("taken over");
    let (owner, epoch) = frozen.owner().await;
    assert!(owner == "bb" && epoch > first_epoch, "{owner} {epoch} after {first_epoch}");
    assert!(!frozen.producer.is_revoked(), "the first node has not noticed yet");
    // The nodes that were asked are informed.
    let asked = frozen.probe.answers().asked.concat();
    assert!(!asked.is_empty());
    tokio::time::timeout(Duration::from_secs(60), async {
        while frozen.probe.answers().informed != asked {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("informed");
    // The owner continues, and ends its publisher at its next renewal.
    frozen.cluster.renew_all().await.unwrap();
    assert!(frozen.producer.is_revoked() && frozen.producer.stream().is_ended());
    assert!(!next.is_revoked());
}

#[tokio::test]
async fn living_owner_keeps_its_name_if_only_the_path_between_two_origins_is_cut() {
    // One edge receives frames, another one has lost its connection.
    let frozen = frozen_owner("cut", &[&[ms(30), ms(9_000)]]).await;
    frozen.probe.answers().probe_delay = Duration::from_secs(1);
    frozen.assert_kept("an edge received a frame after the publisher arrived").await;
    assert_eq!(frozen.probe.answers().asked.len(), 1);
    assert_eq!(frozen.probe.answers().informed.len(), 0);
}

#[tokio::test]
async fn owner_without_witnesses_keeps_its_name_until_its_lease_expires() {
    let frozen = frozen_owner("unwatched", &[&[]]).await;
    frozen.assert_kept("no witness").await;
    let folder = TempFolder::new("unwatched-expired");
    let short_lease = Timing { lease: ms(400), ..Timing::default() };
    let registry = Embedded::open_with(&folder.0, short_lease).unwrap();
    let (owner_hub, _, _) = node_on(&registry, "a", Ownership::Held);
    let _producer = owner_hub.publish_owned(&name(), "rtmp").await.unwrap();
    let (hub, _, _) = node_on(&registry, "bb", Ownership::NoAnswer);
    let accepted = async { while hub.publish_owned(&name(), "rtmp").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), accepted).await.expect("the lease expires");
}

#[tokio::test]
async fn witnesses_are_asked_again_if_the_owner_was_alive_a_moment_ago() {
    // The owner froze 1.9 s before the publisher arrived.
    let frozen = frozen_owner("again", &[&[ms(1_900)], &[ms(2_400)]]).await;
    let _next = frozen.publish().await.expect("taken over");
    assert_eq!(frozen.probe.answers().asked.len(), 2);
    assert_eq!(frozen.owner().await.0, "bb");
}

#[tokio::test]
async fn owner_that_answers_late_keeps_its_name_whatever_the_witnesses_report() {
    for (test, ownership) in [("late-held", Ownership::Held), ("late-unknown", Ownership::Unknown)] {
        let frozen = frozen_owner(test, &[&[ms(9_000)]]).await;
        frozen.probe.set(ownership);
        frozen.probe.answers().probe_delay = ms(600);
        frozen.assert_kept("the owner answers").await;
        assert_eq!(frozen.probe.answers().asked.len(), 1);
    }
    // An owner that answers at once costs no question.
    let frozen = frozen_owner("early", &[&[ms(9_000)]]).await;
    frozen.probe.set(Ownership::Held);
    frozen.assert_kept("the owner answers").await;
    assert_eq!(frozen.probe.answers().asked.len(), 0);
}

#[tokio::test]
async fn publisher_that_retries_in_a_loop_does_not_cause_more_questions() {
    let frozen = frozen_owner("loop", &[&[ms(30)]]).await;
    frozen.probe.answers().probe_delay = ms(600);
    let started = tokio::time::Instant::now();
    for _ in 0..6 {
        assert!(frozen.publish().await.is_err());
    }
    let rounds = frozen.probe.answers().asked.len();
    assert!(rounds <= 1 + started.elapsed().as_secs() as usize, "{rounds} in {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_registry_witnesses_are_not_asked() {
    let folder = TempFolder::new("outage");
    let (hub, cluster, probe) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::NoAnswer);
    probe.answers().silences = vec![vec![ms(9_000)]];
    let frozen = frozen_owner("outage-owner", &[&[]]).await;
    cluster.0.lookups.insert(&name(), frozen.registry.stream(&name()).await.unwrap());
    assert!(hub.publish_owned(&name(), "rtmp").await.is_err(), "the owner may still have it");
    assert_eq!(probe.answers().asked.len(), 0);
}

#[tokio::test]
async fn nodes_with_viewers_and_the_edges_are_asked_but_not_the_owner() {
    let frozen = frozen_owner("asked", &[&[ms(9_000)]]).await;
    let registry = &frozen.registry;
    register(registry, "a", Role::Origin, "").await;
    register(registry, "bb", Role::Origin, "").await;
    register(registry, "idle-origin", Role::Origin, "").await;
    register(registry, "edge1", Role::Edge, "").await;
    let watching = register(registry, "watching-origin", Role::Origin, "").await;
    let watched = vec![StreamViewers { name: name(), viewers: 1 }];
    registry.heartbeat(&watching, &Heartbeat { watched, ..Heartbeat::default() }).await.unwrap();
    let _next = frozen.publish().await.expect("taken over");
    let mut asked = frozen.probe.answers().asked.concat();
    asked.sort();
    // `register` and `node_on` derive addresses from the length of the id.
    let expected =
        ["10.0.0.2:5000", "10.1.0.5:5000", "10.1.0.15:5000"].map(|at| vec![at.parse::<SocketAddr>().unwrap()]);
    assert_eq!(asked, expected);
}
