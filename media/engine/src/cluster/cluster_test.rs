//! Tests of several nodes with one registry, which is unreachable in some of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::config::{self, RegistryKind, Role};
use headwater_api::documents::{BootEpoch, Claim, Heartbeat, NodeDocument, NodeIncarnation, StreamOffer, StreamRecord};
use headwater_registry::{Embedded, Nodes as _, Registry, Store, Streams as _, Timing};

use super::{Cluster, Identity};
use crate::gateway::relay::{
    AnnounceFuture, Ownership, OwnershipProbe, ProbeFuture, ResolveError, StreamLocation, StreamResolver as _,
    TestimonyFuture,
};
use crate::hub::{FetchFuture, FindError, Hub, Limits, PublishError, RelayedStreams, RemoteStreams};

/// A temporary folder that is removed when it is dropped.
pub(super) struct TempFolder(pub(super) PathBuf);

impl TempFolder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-cluster-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct NoRemoteStreams;

impl RemoteStreams for NoRemoteStreams {
    fn fetch(&self, _: &RelayedStreams, _: &StreamName) -> FetchFuture {
        Box::pin(async { Err(FindError::NotPublished) })
    }
}

/// Answers for every owner and every witness, until it is set to other answers.
#[derive(Debug, Clone)]
pub(super) struct FakeProbe(Arc<Mutex<FakeAnswers>>);

#[derive(Debug)]
pub(super) struct FakeAnswers {
    pub(super) ownership: Ownership,
    pub(super) probe_delay: Duration,
    /// Taken by one question after the other; the last one is repeated.
    pub(super) silences: Vec<Vec<Duration>>,
    /// The nodes of each question.
    pub(super) asked: Vec<Vec<Vec<SocketAddr>>>,
    /// The nodes that were informed of a move.
    pub(super) informed: Vec<Vec<SocketAddr>>,
}

impl FakeProbe {
    fn new(ownership: Ownership) -> Self {
        let (probe_delay, silences) = (Duration::ZERO, vec![Vec::new()]);
        Self(Arc::new(Mutex::new(FakeAnswers {
            ownership,
            probe_delay,
            silences,
            asked: Vec::new(),
            informed: Vec::new(),
        })))
    }

    pub(super) fn set(&self, ownership: Ownership) {
        self.answers().ownership = ownership;
    }

    pub(super) fn answers(&self) -> std::sync::MutexGuard<'_, FakeAnswers> {
        self.0.lock().unwrap()
    }
}

impl OwnershipProbe for FakeProbe {
    fn probe<'a>(&'a self, _: &'a [SocketAddr], _: &'a StreamName) -> ProbeFuture<'a> {
        let FakeAnswers { ownership, probe_delay: delay, .. } = *self.answers();
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            ownership
        })
    }

    fn ask_witnesses<'a>(
        &'a self,
        witnesses: &'a [Vec<SocketAddr>],
        _: &'a StreamName,
        _: &'a NodeIncarnation,
    ) -> TestimonyFuture<'a> {
        let mut answers = self.answers();
        answers.asked.push(witnesses.to_vec());
        let silences =
            if answers.silences.len() > 1 { answers.silences.remove(0) } else { answers.silences[0].clone() };
        Box::pin(std::future::ready(silences))
    }

    fn announce_move<'a>(&'a self, witnesses: &'a [Vec<SocketAddr>], _: &'a StreamName) -> AnnounceFuture<'a> {
        self.answers().informed.extend_from_slice(witnesses);
        Box::pin(std::future::ready(()))
    }
}

pub(super) fn timing() -> Timing {
    Timing { heartbeat_interval: Duration::from_millis(50), lease: Duration::from_millis(400), ..Timing::default() }
}

fn node(registry: &Embedded, id: &str) -> (Hub, Cluster<Embedded>) {
    node_with_probe(registry, id, Ownership::Held)
}

fn node_with_probe(registry: &Embedded, id: &str, ownership: Ownership) -> (Hub, Cluster<Embedded>) {
    let (hub, cluster, _) = node_on(registry, id, ownership);
    (hub, cluster)
}

pub(super) fn node_on<R: Registry + Clone + std::fmt::Debug + 'static>(
    registry: &R,
    id: &str,
    ownership: Ownership,
) -> (Hub, Cluster<R>, FakeProbe) {
    let incarnation = NodeIncarnation { node: id.to_owned(), epoch: BootEpoch(1) };
    let relays = vec![format!("10.0.0.{}:5000", id.len()).parse().unwrap()];
    let probe = FakeProbe::new(ownership);
    let cluster = Cluster::new(registry.clone(), Identity { incarnation, relays }, Box::new(probe.clone()), timing());
    let hub = Hub::new(Limits::default());
    hub.join_cluster(Box::new(NoRemoteStreams), Some(Box::new(cluster.clone())));
    (hub, cluster, probe)
}

/// A registry that is never reachable.
pub(super) async fn unreachable_registry(folder: &TempFolder) -> Store {
    let uri_file = folder.0.join("uri");
    // No server listens there.
    std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
    let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
    Store::open(&config, &folder.0).await.unwrap()
}

/// An earlier answer of the registry: node `a` owns the stream.
fn record_of_node_a() -> StreamRecord {
    let owner = NodeIncarnation { node: "a".to_owned(), epoch: BootEpoch(1) };
    let relay = vec!["10.0.0.1:5000".parse().unwrap()];
    StreamRecord {
        claim: Claim { name: name(), owner, epoch: 1 },
        offer: StreamOffer { relay, protocol: "rtmp".to_owned(), started_at_ms: 0 },
        age_ms: 0,
        lease_left_ms: 15_000,
    }
}

pub(super) fn name() -> StreamName {
    StreamName::new("live", "demo").unwrap()
}

async fn publish_when_free(hub: &Hub) -> crate::hub::Producer {
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match hub.publish_owned(&name(), "test").await {
                Ok(producer) => return producer,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .expect("free in time")
}

#[tokio::test]
async fn name_has_one_publisher_in_the_cluster_until_it_is_released() {
    let folder = TempFolder::new("one");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, _) = node(&registry, "a");
    let (two, cluster) = node(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    let refused = two.publish_owned(&name(), "rtmp").await.unwrap_err();
    assert_eq!(refused, PublishError::LiveOnOtherNode { name: name(), node: "a".to_owned() });
    assert!(two.stream(&name()).is_none());
    let location = cluster.resolve(&name()).await.unwrap();
    assert_eq!(location, StreamLocation::direct(vec!["10.0.0.1:5000".parse().unwrap()]));
    drop(first);
    drop(publish_when_free(&two).await);
}

#[tokio::test]
async fn name_of_a_dead_owner_is_free_after_its_lease() {
    let folder = TempFolder::new("dead");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, _) = node(&registry, "a");
    let (two, _) = node(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    // The node hangs: it does not renew its lease.
    let _second = publish_when_free(&two).await;
    assert!(!first.is_revoked(), "the first node has not noticed yet");
}

#[tokio::test]
async fn node_ends_its_stream_if_another_node_took_it_over_meanwhile() {
    let folder = TempFolder::new("fenced");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, hung) = node(&registry, "a");
    let (two, _) = node(&registry, "bb");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    let second = publish_when_free(&two).await;
    hung.renew_all().await.unwrap();
    assert!(first.is_revoked() && first.stream().is_ended());
    assert!(!second.is_revoked());
}

#[tokio::test]
async fn renewed_stream_keeps_its_owner() {
    let folder = TempFolder::new("renewed");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = node(&registry, "a");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(timing().lease / 4).await;
        cluster.renew_all().await.unwrap();
    }
    assert!(registry.stream(&name()).await.unwrap().is_some());
    assert!(!first.is_revoked());
}

#[tokio::test]
async fn stream_published_on_this_node_resolves_to_this_node() {
    let folder = TempFolder::new("here");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = node(&registry, "a");
    let producer = one.publish_owned(&name(), "rtmp").await.unwrap();
    assert_eq!(
        cluster.resolve(&name()).await.unwrap().relays,
        ["10.0.0.1:5000".parse::<std::net::SocketAddr>().unwrap()]
    );
    let stream = Arc::clone(producer.stream());
    drop(producer);
    stream.ended().await;
    assert_eq!(cluster.resolve(&name()).await, Err(ResolveError::NotPublished));
}

#[tokio::test]
async fn name_is_free_at_once_only_if_its_owner_denies_having_it() {
    let folder = TempFolder::new("killed");
    let patient = Timing { lease: Duration::from_secs(600), ..timing() };
    let registry = Embedded::open_with(&folder.0, patient).unwrap();
    let (one, killed) = node(&registry, "a");
    let first = one.publish_owned(&name(), "rtmp").await.unwrap();
    for (id, ownership) in [("bb", Ownership::Held), ("ccc", Ownership::Unknown)] {
        let refused = node_with_probe(&registry, id, ownership).0.publish_owned(&name(), "rtmp").await.unwrap_err();
        assert_eq!(refused, PublishError::LiveOnOtherNode { name: name(), node: "a".to_owned() }, "{ownership:?}");
    }
    let (four, _) = node_with_probe(&registry, "dddd", Ownership::NotHeld);
    let second = four.publish_owned(&name(), "rtmp").await.unwrap();
    assert_eq!(registry.stream(&name()).await.unwrap().unwrap().claim.owner.node, "dddd");
    // If the first node still has the stream after all, it ends it.
    killed.renew_all().await.unwrap();
    assert!(first.is_revoked() && !second.is_revoked());
}

#[tokio::test]
async fn ended_stream_is_released_before_wait_for_releases_returns() {
    let folder = TempFolder::new("settled");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = node(&registry, "a");
    drop(one.publish_owned(&name(), "rtmp").await.unwrap());
    cluster.wait_for_releases().await;
    assert_eq!(registry.stream(&name()).await.unwrap(), None);
}

#[tokio::test]
async fn draining_node_releases_streams_that_are_still_published() {
    let folder = TempFolder::new("drained");
    let registry = Embedded::open_with(&folder.0, timing()).unwrap();
    let (one, cluster) = node(&registry, "a");
    let still = one.publish_owned(&name(), "rtmp").await.unwrap();
    let drain = tokio_util::sync::CancellationToken::new();
    drain.cancel();
    cluster.clone().run(drain).await;
    assert_eq!(registry.stream(&name()).await.unwrap(), None);
    // It has nothing left to release, and cannot take the name from its next owner.
    let (two, _) = node(&registry, "bb");
    let _next = two.publish_owned(&name(), "rtmp").await.unwrap();
    drop(still);
    cluster.wait_for_releases().await;
    assert_eq!(registry.stream(&name()).await.unwrap().unwrap().claim.owner.node, "bb");
}

#[tokio::test(start_paused = true)]
async fn without_a_registry_a_name_is_refused_until_its_last_owner_denies_it() {
    let folder = TempFolder::new("known");
    let (hub, cluster, probe) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::Held);
    drop(hub.publish_owned(&name(), "rtmp").await.expect("unknown"));
    cluster.0.lookups.insert(&name(), Some(record_of_node_a()));
    let refused = PublishError::LiveOnOtherNode { name: name(), node: "a".to_owned() };
    // Even if the answer is old; a refused publisher tries again.
    for ownership in [Ownership::Held, Ownership::Held, Ownership::Unknown, Ownership::NoAnswer] {
        tokio::time::advance(Duration::from_secs(10 * 60)).await;
        probe.set(ownership);
        assert_eq!(hub.publish_owned(&name(), "rtmp").await.unwrap_err(), refused, "{ownership:?}");
    }
    probe.set(Ownership::NotHeld);
    drop(hub.publish_owned(&name(), "rtmp").await.expect("its owner denies it"));
    // This node was the last owner.
    probe.set(Ownership::Held);
    drop(hub.publish_owned(&name(), "rtmp").await.expect("unknown again"));
}

#[tokio::test(start_paused = true)]
async fn without_a_registry_an_unresponsive_owner_without_media_loses_its_name() {
    let folder = TempFolder::new("silent");
    let (hub, cluster, probe) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::NoAnswer);
    cluster.0.lookups.insert(&name(), Some(record_of_node_a()));
    let refused = PublishError::LiveOnOtherNode { name: name(), node: "a".to_owned() };
    let try_for = async |lease: f64| {
        let started = tokio::time::Instant::now();
        while started.elapsed() < Timing::default().lease.mul_f64(lease) {
            assert_eq!(hub.publish_owned(&name(), "rtmp").await.unwrap_err(), refused, "{:?}", started.elapsed());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    try_for(0.7).await;
    // An answer in between, or media, restarts the count.
    probe.set(Ownership::Held);
    try_for(0.1).await;
    probe.set(Ownership::NoAnswer);
    try_for(0.7).await;
    cluster.confirm(&name());
    try_for(0.7).await;
    // So does a time without probes.
    tokio::time::advance(Duration::from_secs(2 * 60)).await;
    try_for(0.7).await;
    tokio::time::advance(Timing::default().lease / 2).await;
    drop(hub.publish_owned(&name(), "rtmp").await.expect("unresponsive for a lease"));
}

#[tokio::test(start_paused = true)]
async fn without_a_registry_a_stream_is_unknown_unless_its_owner_is_remembered() {
    let folder = TempFolder::new("unanswered");
    let (_, cluster, _) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::Held);
    assert_eq!(cluster.resolve(&name()).await, Err(ResolveError::RegistryUnreachable));
    // The registry's last answer was that no node had the stream: one may have it by now.
    cluster.0.lookups.insert(&name(), None);
    assert_eq!(cluster.resolve(&name()).await, Err(ResolveError::NotPublished), "a fresh answer");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(cluster.resolve(&name()).await, Err(ResolveError::RegistryUnreachable));
    cluster.0.lookups.insert(&name(), Some(record_of_node_a()));
    tokio::time::advance(Duration::from_secs(2)).await;
    let owner = StreamLocation::direct(record_of_node_a().offer.relay);
    assert_eq!(cluster.resolve(&name()).await, Ok(owner));
}

#[tokio::test(start_paused = true)]
async fn owner_is_remembered_for_an_hour_after_its_last_media() {
    let folder = TempFolder::new("hours");
    let (hub, cluster, _) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::Held);
    cluster.0.lookups.insert(&name(), Some(record_of_node_a()));
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(50 * 60)).await;
        cluster.confirm(&name());
    }
    assert!(hub.publish_owned(&name(), "rtmp").await.is_err());
    tokio::time::advance(Duration::from_secs(61 * 60)).await;
    drop(hub.publish_owned(&name(), "rtmp").await.expect("forgotten"));
}

pub(super) async fn register(registry: &Embedded, id: &str, role: Role, group: &str) -> NodeIncarnation {
    let relay = vec![format!("10.1.0.{}:5000", id.len()).parse().unwrap()];
    let node = NodeDocument {
        id: id.to_owned(),
        role,
        relay,
        group: group.to_owned(),
        ..serde_json::from_str(r#"{"id": "", "role": "edge", "addresses": [], "version": ""}"#).unwrap()
    };
    registry.register(&node, None).await.unwrap()
}

#[tokio::test]
async fn stream_of_another_group_resolves_to_one_edge_of_the_own_group() {
    let folder = TempFolder::new("groups");
    let registry = Embedded::open_with(&folder.0, Timing::default()).unwrap();
    register(&registry, "a", Role::Origin, "west").await;
    register(&registry, "bb", Role::Edge, "west").await;
    register(&registry, "eeeee", Role::Edge, "east").await;
    register(&registry, "oooo", Role::Origin, "east").await;
    register(&registry, "wwwwww", Role::Origin, "west").await;
    let (one, _) = node(&registry, "a");
    let _live = one.publish_owned(&name(), "rtmp").await.unwrap();
    let owner = vec!["10.0.0.1:5000".parse().unwrap()];
    let (_, neighbour) = node(&registry, "wwwwww");
    assert_eq!(neighbour.resolve(&name()).await, Ok(StreamLocation::direct(owner.clone())));
    let edge = vec!["10.1.0.5:5000".parse().unwrap()];
    let (_, far) = node(&registry, "oooo");
    let through_edge = StreamLocation { owner_relays: Some(owner.clone()), ..StreamLocation::direct(edge) };
    assert_eq!(far.resolve(&name()).await, Ok(through_edge));
    let (_, itself) = node(&registry, "eeeee");
    assert_eq!(itself.resolve(&name()).await, Ok(StreamLocation::direct(owner)));
}

#[tokio::test]
async fn draining_or_unlisted_node_is_unavailable_unless_the_registry_is_unreachable() {
    let folder = TempFolder::new("leaving");
    let registry = Embedded::open_with(&folder.0, Timing::default()).unwrap();
    let serving = register(&registry, "serving", Role::Edge, "").await;
    let draining = register(&registry, "draining", Role::Edge, "").await;
    registry.heartbeat(&serving, &Heartbeat::default()).await.unwrap();
    registry.heartbeat(&draining, &Heartbeat { draining: true, ..Heartbeat::default() }).await.unwrap();
    let (_, cluster) = node(&registry, "a");
    for (id, is_unavailable) in [("serving", false), ("draining", true), ("absent", true)] {
        assert_eq!(cluster.is_unavailable(id).await, is_unavailable, "{id}");
    }
    let (_, lost, _) = node_on(&unreachable_registry(&folder).await, "bb", Ownership::Held);
    assert!(!lost.is_unavailable("draining").await);
}
