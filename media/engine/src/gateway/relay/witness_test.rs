//! Tests of what edges observe of an owner that is silent, and of how they leave it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_api::documents::{BootEpoch, NodeIncarnation};
use headwater_wire::relay::{ClusterSecret, Message, Owner};

use super::link::Link;
use super::relay_test::{
    FreezableProxy, Node, TEST_TIMEOUT, TestPublisher, incarnation, marks, name, node, node_with, node_with_timing,
    node_without_name, secret, test_timing, wait_until,
};
use super::{OwnershipProbe as _, RelayProbe, Timing};
use crate::hub::Consumer;

fn probe() -> RelayProbe {
    RelayProbe::new(secret(), TEST_TIMEOUT)
}

fn owner() -> Owner {
    Owner { node: incarnation().node, boot_epoch: incarnation().epoch.0 }
}

/// For how long the owner has been silent, as this edge observes it.
fn silence(edge: &Node) -> Option<Duration> {
    edge.client.silence_of(&name(), &owner())
}

/// The answers of these nodes about the owner.
async fn ask(nodes: &[&Node], about: &NodeIncarnation) -> Vec<Duration> {
    let relays: Vec<_> = nodes.iter().map(|node| vec![node.address]).collect();
    probe().ask_witnesses(&relays, &name(), about).await
}

/// A viewer on `edge`, which pulls from `source` and has received the first frame.
async fn viewer_through(edge: &Node, source: std::net::SocketAddr) -> Consumer {
    edge.resolver.set(&[source]);
    let mut viewer = edge.hub.find(&name()).await.expect("found").consumer();
    assert_eq!(marks(&mut viewer, 1).await, [0]);
    viewer
}

/// Long enough to be a silence, and short enough for a test.
const MIN_SILENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn owner_without_frames_sends_heartbeats() {
    let (origin, edge) = (node(), node());
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let _viewer = viewer_through(&edge, origin.address).await;
    for heartbeat in 0..5 {
        let mut longest = Duration::ZERO;
        wait_until("a sign of life", || {
            let silence = silence(&edge).expect("a witness");
            let is_shorter = silence < longest;
            longest = longest.max(silence);
            is_shorter
        })
        .await;
        assert!(longest < TEST_TIMEOUT, "{heartbeat}");
    }
    assert_eq!(ask(&[&edge], &incarnation()).await.len(), 1);
}

#[tokio::test]
async fn edge_testifies_for_how_long_a_frozen_owner_has_been_silent() {
    let (origin, edge, other) = (node(), node(), node());
    let proxy = FreezableProxy::start(origin.address).await;
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let _viewer = viewer_through(&edge, proxy.address).await;
    proxy.freeze();
    wait_until("silence", || silence(&edge).is_some_and(|silence| silence >= MIN_SILENCE)).await;
    // The process may live, but what it sends does not arrive.
    publisher.send_frames(1);
    // Only the edge that watches the stream testifies, and only about the owner that it watched.
    let testimonies = ask(&[&edge, &other], &incarnation()).await;
    assert!(matches!(testimonies[..], [silence] if silence >= MIN_SILENCE), "{testimonies:?}");
    for about in [
        NodeIncarnation { node: "another".to_owned(), ..incarnation() },
        NodeIncarnation { epoch: BootEpoch(8), ..incarnation() },
    ] {
        assert!(ask(&[&edge], &about).await.is_empty(), "{about:?}");
    }
    assert_eq!(edge.client.metrics().testimonies.get(), 3);
}

#[tokio::test]
async fn edge_testifies_about_the_owner_and_not_about_the_edge_between_them() {
    let (origin, middle, edge) = (node(), node(), node());
    let proxy = FreezableProxy::start(origin.address).await;
    middle.resolver.set(&[proxy.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    edge.resolver.set_through(&[middle.address], &[proxy.address]);
    let _viewer = edge.hub.find(&name()).await.expect("found").consumer();
    wait_until("the owner is known", || silence(&edge).is_some()).await;
    proxy.freeze();
    // The edge between them lives and sends heartbeats, which report the silence of the owner.
    wait_until("silence", || silence(&edge).is_some_and(|silence| silence >= MIN_SILENCE)).await;
    assert_eq!(ask(&[&edge, &middle], &incarnation()).await.len(), 2);
}

#[tokio::test]
async fn peer_that_does_not_prove_the_secret_or_does_not_answer_is_no_witness() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let stranger = node_with(ClusterSecret::new(b"a secret of another cluster").unwrap(), 50, test_timing());
    let edge = node();
    let _viewer = viewer_through(&edge, origin.address).await;
    // It accepts connections and hangs, as a stopped process does.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nodes = [stranger.address, silent.local_addr().unwrap(), edge.address].map(|address| vec![address]);
    // The answer of the edge counts, although another node does not answer in time.
    let short = RelayProbe::new(secret(), Duration::from_secs(1));
    let mut testimonies = Vec::new();
    // On a busy machine, an answer may take longer.
    while testimonies.is_empty() {
        testimonies = short.ask_witnesses(&nodes, &name(), &incarnation()).await;
    }
    assert_eq!(testimonies.len(), 1);
    // A stranger gets no answer.
    let stranger_probe =
        RelayProbe::new(ClusterSecret::new(b"a secret of another cluster").unwrap(), Duration::from_secs(1));
    assert!(stranger_probe.ask_witnesses(&[vec![edge.address]], &name(), &incarnation()).await.is_empty());
    wait_until("refused", || edge.client.metrics().unauthenticated.get() > 0).await;
}

#[tokio::test]
async fn edge_of_an_older_origin_is_no_witness_and_keeps_playing() {
    let (origin, edge) = (node_without_name(), node());
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, origin.address).await;
    publisher.send_frames(1);
    assert_eq!(marks(&mut viewer, 1).await, [1]);
    assert!(ask(&[&edge], &incarnation()).await.is_empty());
    // Nor is one that has moved there from an owner that named itself.
    let (first, older, edge) = (node(), node_without_name(), node());
    let proxy = FreezableProxy::start(first.address).await;
    let mut first_publisher = TestPublisher::on_node(&first, 50);
    first_publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, proxy.address).await;
    assert_eq!(ask(&[&edge], &incarnation()).await.len(), 1);
    proxy.freeze();
    let mut next_publisher = TestPublisher::on_node(&older, 50);
    next_publisher.send_frames(2);
    edge.resolver.set(&[older.address]);
    probe().announce_move(&[vec![edge.address]], &name()).await;
    assert_eq!(marks(&mut viewer, 2).await, [0, 1]);
    assert!(ask(&[&edge], &incarnation()).await.is_empty());
}

#[tokio::test]
async fn full_edge_testifies() {
    let (origin, edge) = (node(), node_with(secret(), 1, test_timing()));
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let _viewer = viewer_through(&edge, origin.address).await;
    let _connection = Link::connect(edge.address, &secret(), TEST_TIMEOUT).await.unwrap();
    assert_eq!(ask(&[&edge], &incarnation()).await.len(), 1);
}

#[tokio::test]
async fn edge_moves_as_soon_as_the_new_owner_announces_itself() {
    let (first, second, edge) = (node(), node(), node());
    let proxy = FreezableProxy::start(first.address).await;
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, proxy.address).await;
    // No timeout of the edge ends the connection to the frozen owner.
    proxy.freeze();
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(3);
    edge.resolver.set(&[second.address]);
    probe().announce_move(&[vec![edge.address]], &name()).await;
    assert_eq!(marks(&mut viewer, 3).await, [0, 1, 2]);
    assert_eq!(edge.client.metrics().resumed.get(), 1);
}

#[tokio::test]
async fn edge_that_searches_moves_as_soon_as_the_new_owner_announces_itself() {
    let (first, second, edge) = (node(), node(), node());
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, first.address).await;
    // The owner accepts connections and hangs; the timeout of the connection is long.
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    edge.resolver.set(&[frozen.local_addr().unwrap()]);
    first.task.abort();
    first.drain.cancel();
    let _connection = frozen.accept().await.unwrap();
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(3);
    edge.resolver.set(&[second.address]);
    probe().announce_move(&[vec![edge.address]], &name()).await;
    assert_eq!(marks(&mut viewer, 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn edge_resolves_the_stream_again_while_its_owner_is_silent() {
    let (first, second) = (node(), node());
    let edge = node_with_timing(Timing { owner_check_interval: MIN_SILENCE, ..test_timing() });
    let proxy = FreezableProxy::start(first.address).await;
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, proxy.address).await;
    proxy.freeze();
    // The registry still names the silent owner: the edge stays.
    let before = edge.resolver.lookups.load(Ordering::Relaxed);
    wait_until("resolved twice", || edge.resolver.lookups.load(Ordering::Relaxed) >= before + 2).await;
    assert_eq!(edge.client.metrics().resumed.get(), 0);
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(3);
    edge.resolver.set(&[second.address]);
    assert_eq!(marks(&mut viewer, 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn announced_move_that_the_registry_does_not_confirm_changes_nothing() {
    let (origin, edge) = (node(), node());
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut viewer = viewer_through(&edge, origin.address).await;
    let before = edge.resolver.lookups.load(Ordering::Relaxed);
    probe().announce_move(&[vec![edge.address]], &name()).await;
    wait_until("resolved again", || edge.resolver.lookups.load(Ordering::Relaxed) > before).await;
    publisher.send_frames(2);
    assert_eq!(marks(&mut viewer, 2).await, [1, 2]);
    assert_eq!((origin.client.metrics().accepted.get(), edge.client.metrics().resumed.get()), (1, 0));
}

#[tokio::test]
async fn heartbeat_names_the_owner_before_the_first_frame() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut link = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    let subscribe = Message::Subscribe {
        app: name().app().to_owned(),
        stream_id: name().stream_id().to_owned(),
        history: false,
        max_hops: 1,
    };
    link.writer.send(&subscribe, TEST_TIMEOUT).await.unwrap();
    let first = link.reader.next_within(TEST_TIMEOUT).await.unwrap();
    assert!(matches!(first, Message::Accepted { .. }), "{first:?}");
    let second = link.reader.next_within(TEST_TIMEOUT).await.unwrap();
    assert_eq!(second, Message::Heartbeat { owner: owner(), silent_ms: 0 });
}
