//! Tests of nodes that relay to each other over loopback, and of unauthenticated peers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::documents::{BootEpoch, NodeIncarnation};
use headwater_api::{StreamName, config};
use headwater_wire::relay::{ClientHandshake, ClusterSecret, Message, Refusal, SERVER_HELLO_BYTES};
use headwater_wire::{Codec, Frame, MediaTime, Track, VideoTrack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::handshakes::MAX_HANDSHAKES;
use super::link::Link;
use super::pulls::MAX_SEARCHES;
use super::{
    Ownership, OwnershipProbe as _, RelayClient, RelayProbe, ResolveError, ResolveFuture, Server, StreamLocation,
    StreamResolver, Timing,
};
use crate::hub::{Consumer, FindError, Hub, Item, Limits, Producer};

#[derive(Debug, Default)]
pub(super) struct TestResolver {
    locations: Mutex<HashMap<StreamName, StreamLocation>>,
    pub(super) registry_is_unreachable: AtomicBool,
    pub(super) lookups: AtomicUsize,
    invalidations: AtomicUsize,
    confirmations: AtomicUsize,
}

impl TestResolver {
    pub(super) fn set(&self, at: &[SocketAddr]) {
        self.set_location(StreamLocation::direct(at.to_vec()));
    }

    pub(super) fn set_any_of(&self, nodes: &[SocketAddr]) {
        self.set_location(StreamLocation::any_of(nodes.to_vec()));
    }

    pub(super) fn set_through(&self, at: &[SocketAddr], owner: &[SocketAddr]) {
        self.set_location(StreamLocation { owner_relays: Some(owner.to_vec()), ..StreamLocation::direct(at.to_vec()) });
    }

    fn set_location(&self, location: StreamLocation) {
        self.locations.lock().unwrap().insert(name(), location);
    }
}

impl StreamResolver for TestResolver {
    fn resolve<'a>(&'a self, name: &'a StreamName) -> ResolveFuture<'a> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let found = self.locations.lock().unwrap().get(name).cloned();
        let error = if self.registry_is_unreachable.load(Ordering::Relaxed) {
            ResolveError::RegistryUnreachable
        } else {
            ResolveError::NotPublished
        };
        Box::pin(async move { found.ok_or(error) })
    }

    fn invalidate(&self, _: &StreamName) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
    }

    fn confirm(&self, _: &StreamName) {
        self.confirmations.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Node {
    pub(super) hub: Hub,
    pub(super) client: RelayClient,
    pub(super) resolver: Arc<TestResolver>,
    pub(super) address: SocketAddr,
    pub(super) drain: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<()>,
}

pub(super) fn name() -> StreamName {
    StreamName::new("live", "demo").unwrap()
}

/// The owner of the streams of all test nodes.
pub(super) fn incarnation() -> NodeIncarnation {
    NodeIncarnation { node: "origin".to_owned(), epoch: BootEpoch(7) }
}

pub(super) fn secret() -> ClusterSecret {
    ClusterSecret::new(b"a secret of the cluster").unwrap()
}

/// Timeouts that only end a test which fails anyway. A test that waits for a timeout shortens it.
pub(super) fn test_timing() -> Timing {
    Timing {
        connect_timeout: TEST_TIMEOUT,
        ping_interval: Duration::from_millis(40),
        silence_timeout: TEST_TIMEOUT,
        heartbeat_interval: Duration::from_millis(40),
        owner_check_interval: TEST_TIMEOUT,
        no_viewers_timeout: TEST_TIMEOUT,
        search_timeout: TEST_TIMEOUT,
        fetch_timeout: TEST_TIMEOUT,
    }
}

pub(super) fn node_with(secret: ClusterSecret, max_connections: usize, timing: Timing) -> Node {
    node_of(secret, max_connections, timing, Some(incarnation()))
}

/// A node that names no owner to its edges, as an older version does.
pub(super) fn node_without_name() -> Node {
    node_of(secret(), 50, test_timing(), None)
}

fn node_of(secret: ClusterSecret, max_connections: usize, timing: Timing, owner: Option<NodeIncarnation>) -> Node {
    let resolver = Arc::new(TestResolver::default());
    let client = RelayClient::new(secret, Arc::clone(&resolver) as Arc<dyn StreamResolver>, timing);
    let hub = Hub::new(Limits::default());
    hub.join_cluster(Box::new(client.clone()), None);
    let listen = "127.0.0.1:0".parse().unwrap();
    let config =
        config::Relay { listen, max_connections: max_connections.try_into().unwrap(), ..config::Relay::default() };
    let mut server = Server::bind(&config).unwrap();
    if let Some(owner) = owner {
        server = server.with_incarnation(&owner);
    }
    let (address, drain) = (server.local_addr(), CancellationToken::new());
    let task = tokio::spawn(server.run(hub.clone(), client.clone(), drain.clone()));
    Node { hub, client, resolver, address, drain, task }
}

pub(super) fn node() -> Node {
    node_with_timing(test_timing())
}

pub(super) fn node_with_timing(timing: Timing) -> Node {
    node_with(secret(), 50, timing)
}

/// A node that accepts one connection.
fn node_with_one_slot() -> Node {
    node_with(secret(), 1, test_timing())
}

/// Publishes a stream of 25 frames per second with a key frame every `gop_frames`.
pub(super) struct TestPublisher {
    producer: Producer,
    track: Arc<Track>,
    next: i64,
    gop_frames: i64,
}

impl TestPublisher {
    pub(super) fn on_node(node: &Node, gop_frames: i64) -> Self {
        // Two generations of a name never begin within the same millisecond; in a test they could.
        let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let started_ms = now_ms();
        while now_ms() == started_ms {
            std::thread::yield_now();
        }
        let track = Arc::new(Track {
            codec: Codec::H264,
            config: Bytes::from_static(b"config"),
            codec_string: Some("avc1.42001f".to_owned()),
            video: Some(VideoTrack { width: 640, height: 360, reorder_frames: Some(0) }),
            audio: None,
        });
        Self { producer: node.hub.publish(&name(), "test").unwrap(), track, next: 0, gop_frames }
    }

    pub(super) fn send_frames(&mut self, count: i64) {
        self.send_frames_of(count, 8);
    }

    fn send_frames_of(&mut self, count: i64, bytes: usize) {
        for _ in 0..count {
            let t = MediaTime::from_ms(self.next * 40);
            let mut payload = vec![0; bytes];
            payload[..8].copy_from_slice(&self.next.to_be_bytes());
            self.producer.send(Frame {
                track: Arc::clone(&self.track),
                dts: t,
                pts: t,
                key: self.next % self.gop_frames == 0,
                payload: payload.into(),
            });
            self.next += 1;
        }
    }
}

pub(super) fn mark(item: &Item) -> i64 {
    i64::from_be_bytes(*item.frame.payload.first_chunk().unwrap())
}

pub(super) async fn marks(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut marks = Vec::new();
    while marks.len() < count {
        let item = tokio::time::timeout(TEST_TIMEOUT, consumer.next()).await.expect("in time").expect("not ended");
        marks.push(mark(&item));
    }
    marks
}

pub(super) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    tokio::time::timeout(TEST_TIMEOUT, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect(what);
}

/// Longer than any wait of a test that passes, also on a busy machine.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn pulled_stream_starts_at_the_last_key_frame_and_keeps_segment_numbers() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(120);
    let here = edge.hub.find(&name()).await.expect("found");
    assert_eq!(here.started_at_ms(), publisher.producer.stream().started_at_ms());
    let (mut far, mut near) = (here.consumer(), publisher.producer.stream().consumer());
    publisher.send_frames(30);
    for expect in 100..150 {
        let (far, near) = (far.next().await.unwrap(), near.next().await.unwrap());
        assert_eq!((mark(&far), mark(&near)), (expect, expect));
        assert_eq!((far.segment, far.generation), (near.segment, near.generation));
        assert_eq!(far.targets, near.targets);
        assert_eq!((far.frame.dts, far.frame.pts, far.frame.key), (near.frame.dts, near.frame.pts, near.frame.key));
        assert_eq!(far.frame.track, near.frame.track);
    }
}

#[tokio::test]
async fn concurrent_viewers_share_one_relay_connection() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let hub = edge.hub.clone();
            tokio::spawn(async move { hub.find(&name()).await.expect("found").instance_id() })
        })
        .collect();
    let mut instance_ids = Vec::new();
    for task in tasks {
        instance_ids.push(task.await.unwrap());
    }
    instance_ids.dedup();
    assert_eq!((instance_ids.len(), origin.client.metrics().accepted.get()), (1, 1));
}

#[tokio::test]
async fn stream_that_no_node_has_is_not_found() {
    let (origin, edge) = (node(), node());
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::NotPublished);
    // The registry names a node that does not have the stream.
    let other = node();
    other.resolver.set(&[origin.address]);
    assert_eq!(other.hub.find(&name()).await.unwrap_err(), FindError::NotPublished);
    wait_until("the pull ended", || other.client.metrics().pulls.get() == 0).await;
}

#[tokio::test]
async fn viewers_of_a_stream_that_no_node_has_cost_one_connection() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    for _ in 0..20 {
        assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::NotPublished);
    }
    // The answer is authoritative, so it is not asked for again; on a busy machine the twenty
    // requests may take longer than it is remembered.
    assert!(origin.client.metrics().accepted.get() < 5, "{:?}", origin.client.metrics().accepted);
    assert!(edge.resolver.lookups.load(Ordering::Relaxed) < 10);
    // A stream that starts is found soon.
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    tokio::time::timeout(TEST_TIMEOUT, async { while edge.hub.find(&name()).await.is_err() {} }).await.unwrap();
}

#[tokio::test]
async fn stream_of_an_unreachable_node_is_not_reported_as_unpublished() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = node();
    edge.resolver.set(&[closed.local_addr().unwrap()]);
    drop(closed);
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::Unreachable);
    // A node that accepts connections and hangs.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = node_with_timing(Timing { connect_timeout: Duration::from_millis(100), ..test_timing() });
    edge.resolver.set(&[silent.local_addr().unwrap()]);
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::Unreachable);
}

#[tokio::test]
async fn number_of_concurrent_searches_is_limited() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = node_with_timing(Timing { fetch_timeout: Duration::from_millis(1), ..test_timing() });
    let location = StreamLocation::direct(vec![silent.local_addr().unwrap()]);
    let names: Vec<_> = (0..=MAX_SEARCHES).map(|n| StreamName::new("live", &format!("s{n}")).unwrap()).collect();
    edge.resolver.locations.lock().unwrap().extend(names.iter().map(|name| (name.clone(), location.clone())));
    for (n, name) in names.iter().enumerate() {
        let is_refused = edge.hub.find(name).await.unwrap_err() == FindError::TooManySearches;
        assert_eq!(is_refused, n == MAX_SEARCHES, "{n}");
    }
    // A stream that is searched for already is no new search.
    assert_ne!(edge.hub.find(&names[0]).await.unwrap_err(), FindError::TooManySearches);
}

#[tokio::test]
async fn pull_ends_after_the_last_viewer_has_left() {
    let origin = node();
    let edge = node_with_timing(Timing { no_viewers_timeout: Duration::from_millis(200), ..test_timing() });
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let viewer = edge.hub.find(&name()).await.unwrap().consumer();
    wait_until("served", || origin.client.metrics().edges.get() == 1).await;
    drop(viewer);
    wait_until("the pull ended without viewers", || {
        origin.client.metrics().edges.get() == 0 && edge.client.metrics().pulls.get() == 0
    })
    .await;
    assert!(edge.hub.stream(&name()).is_none());
    assert!(edge.hub.find(&name()).await.is_ok());
}

#[tokio::test]
async fn stream_ends_at_the_edge_when_the_publisher_ends_it() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(2);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    assert_eq!(marks(&mut viewer, 2).await, [0, 1]);
    drop(publisher);
    assert!(tokio::time::timeout(TEST_TIMEOUT, viewer.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn stream_continues_from_another_origin_after_the_first_one_is_killed() {
    let (first, second, edge) = (node(), node(), node());
    edge.resolver.set(&[first.address]);
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(110);
    let here = edge.hub.find(&name()).await.unwrap();
    let mut viewer = here.consumer();
    assert_eq!(marks(&mut viewer, 10).await.last(), Some(&109));
    // Killed: sockets close without an end message, and the publisher moves to another node.
    first.task.abort();
    first.drain.cancel();
    edge.resolver.set(&[second.address]);
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(3);
    let mut last = MediaTime::from_ms(109 * 40);
    for expect in 0..3 {
        let item = tokio::time::timeout(TEST_TIMEOUT, viewer.next()).await.unwrap().expect("goes on");
        assert_eq!(mark(&item), expect);
        assert!(item.frame.dts > last, "timestamps increase");
        last = item.frame.dts;
        assert_eq!(item.generation, next_publisher.producer.stream().started_at_ms());
        assert_eq!(item.in_generation_time().dts.as_ms(), expect * 40, "the same as on every other node");
        assert!(item.segment.number >= headwater_wire::segment::first_segment_number(item.generation));
    }
    assert!(Arc::ptr_eq(&here, &edge.hub.stream(&name()).unwrap()));
    assert_eq!(edge.client.metrics().resumed.get(), 1);
}

#[tokio::test]
async fn generation_without_a_frame_begins_with_its_first_frame() {
    let (first, second, edge) = (node(), node(), node());
    edge.resolver.set(&[first.address]);
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    first.task.abort();
    first.drain.cancel();
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    edge.resolver.set(&[second.address]);
    wait_until("reconnected", || edge.client.metrics().resumed.get() == 1).await;
    next_publisher.send_frames(1);
    let item = tokio::time::timeout(TEST_TIMEOUT, viewer.next()).await.unwrap().expect("goes on");
    assert_eq!(item.generation, next_publisher.producer.stream().started_at_ms());
}

#[tokio::test]
async fn edge_reconnects_when_the_origin_hangs_and_repeats_no_frame() {
    let origin = node();
    let edge = node_with_timing(Timing { silence_timeout: Duration::from_millis(400), ..test_timing() });
    let proxy = FreezableProxy::start(origin.address).await;
    edge.resolver.set(&[proxy.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(60);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    assert_eq!(marks(&mut viewer, 10).await, (50..60).collect::<Vec<_>>());
    // Half open: no more bytes arrive, and no socket is closed.
    proxy.freeze();
    publisher.send_frames(5);
    wait_until("reconnected", || edge.client.metrics().resumed.get() >= 1).await;
    publisher.send_frames(5);
    assert_eq!(marks(&mut viewer, 10).await, (60..70).collect::<Vec<_>>());
}

#[tokio::test]
async fn draining_origin_sends_its_edges_to_another_source() {
    let (first, second, edge) = (node(), node(), node());
    edge.resolver.set(&[first.address]);
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    edge.resolver.set(&[second.address]);
    first.drain.cancel();
    drop(publisher);
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(1);
    assert_eq!(marks(&mut viewer, 1).await, [0]);
    tokio::time::timeout(TEST_TIMEOUT, first.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn viewers_of_a_revoked_stream_continue_from_its_new_owner() {
    let (first, second, edge) = (node(), node(), node());
    edge.resolver.set(&[first.address]);
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    let mut next_publisher = TestPublisher::on_node(&second, 50);
    next_publisher.send_frames(1);
    edge.resolver.set(&[second.address]);
    publisher.producer.stream().revoke();
    assert_eq!(marks(&mut viewer, 1).await, [0]);
}

#[tokio::test]
async fn stream_ends_when_no_source_is_found_within_the_search_timeout() {
    let origin = node();
    let edge = node_with_timing(Timing { search_timeout: Duration::from_secs(2), ..test_timing() });
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    edge.resolver.locations.lock().unwrap().clear();
    origin.drain.cancel();
    assert!(tokio::time::timeout(TEST_TIMEOUT, viewer.next()).await.unwrap().is_none());
    assert_eq!(edge.client.metrics().given_up.get(), 1);
}

#[tokio::test]
async fn edge_of_an_edge_receives_the_same_stream() {
    let (origin, middle, edge) = (node(), node(), node());
    middle.resolver.set(&[origin.address]);
    edge.resolver.set_through(&[middle.address], &[]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(60);
    let here = edge.hub.find(&name()).await.expect("through the middle");
    let mut viewer = here.consumer();
    publisher.send_frames(1);
    assert_eq!(marks(&mut viewer, 11).await, (50..61).collect::<Vec<_>>());
    assert_eq!(here.started_at_ms(), publisher.producer.stream().started_at_ms());
    assert_eq!(middle.hub.streams().len(), 1);
}

#[tokio::test]
async fn two_nodes_that_name_each_other_as_source_do_not_loop() {
    // Each of them waits for the other one until this time-out.
    let timing = Timing { fetch_timeout: Duration::from_millis(200), ..test_timing() };
    let (one, two) = (node_with_timing(timing), node_with_timing(timing));
    one.resolver.set_through(&[two.address], &[]);
    two.resolver.set_through(&[one.address], &[]);
    assert!(one.hub.find(&name()).await.is_err());
}

#[tokio::test]
async fn late_edge_receives_the_segments_that_other_edges_list() {
    let (origin, early, late) = (node(), node(), node());
    early.resolver.set(&[origin.address]);
    late.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(60);
    let mut first = early.hub.find(&name()).await.unwrap().consumer_with_history();
    for seen in [60, 110, 160, 210] {
        marks(&mut first, if seen == 60 { 10 } else { 50 }).await;
        publisher.send_frames(50);
    }
    assert_eq!(marks(&mut first, 50).await, (210..260).collect::<Vec<_>>());
    let here = late.hub.find(&name()).await.unwrap();
    let mut second = here.consumer();
    assert_eq!(
        marks(&mut second, 10).await,
        (250..260).collect::<Vec<_>>(),
        "live viewers start at the last key frame"
    );
    let mut third = here.consumer_with_history();
    assert_eq!(marks(&mut third, 210).await, (50..260).collect::<Vec<_>>(), "packagers receive the history");
}

#[tokio::test]
async fn slow_edge_skips_to_a_key_frame_without_blocking_the_stream() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames_of(1, 100_000);
    let mut link = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    let subscribe =
        Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, max_hops: 1 };
    link.writer.send(&subscribe, TEST_TIMEOUT).await.unwrap();
    while link.reader.next().await.unwrap() != Message::Live {}
    // 40 MB while the edge does not read: more than any socket buffer holds.
    let mut neighbour = publisher.producer.stream().consumer();
    for _ in 0..400 {
        publisher.send_frames_of(1, 100_000);
        while let crate::hub::Next::Item(_) = neighbour.try_next() {}
        tokio::task::yield_now().await;
    }
    let (mut got, mut gaps) = (Vec::new(), Vec::new());
    while got.last() != Some(&400) {
        if let Message::Frame(media) = link.reader.next().await.unwrap() {
            let number = i64::from_be_bytes(*media.payload.first_chunk().unwrap());
            if media.after_gap {
                gaps.push(number);
            }
            got.push(number);
        }
    }
    assert!(got.len() < 350, "{} frames", got.len());
    assert!(!gaps.is_empty() && gaps.iter().all(|n| n % 50 == 0), "{gaps:?}");
}

#[tokio::test]
async fn peer_without_the_secret_receives_nothing() {
    let origin = node();
    let edge = node_with(ClusterSecret::new(b"the secret of another cluster").unwrap(), 9, test_timing());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    assert!(edge.hub.find(&name()).await.is_err());
    assert!(origin.client.metrics().unauthenticated.get() > 0);
    assert_eq!(origin.client.metrics().edges.get(), 0);
}

#[tokio::test]
async fn replayed_handshake_is_refused() {
    let origin = node();
    let (handshake, hello) = ClientHandshake::new(&secret(), [7; 32]);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut server = [0; SERVER_HELLO_BYTES];
    socket.read_exact(&mut server).await.unwrap();
    let (proof, _) = handshake.on_server_hello(&server).unwrap();
    let mut replay = TcpStream::connect(origin.address).await.unwrap();
    replay.write_all(&hello).await.unwrap();
    replay.read_exact(&mut server).await.unwrap();
    replay.write_all(&proof).await.unwrap();
    // The connection may be reset instead of closed.
    assert_eq!(replay.read(&mut [0; 1]).await.unwrap_or(0), 0);
    wait_until("counted", || origin.client.metrics().unauthenticated.get() == 1).await;
}

#[tokio::test]
async fn garbage_before_or_after_the_handshake_closes_only_its_own_connection() {
    let origin = node();
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&[0x5a; 4_096]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);

    let (handshake, hello) = ClientHandshake::new(&secret(), [7; 32]);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut server = [0; SERVER_HELLO_BYTES];
    socket.read_exact(&mut server).await.unwrap();
    let (proof, _) = handshake.on_server_hello(&server).unwrap();
    socket.write_all(&proof).await.unwrap();
    // A record of four gigabytes is announced.
    socket.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);

    let mut link = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    link.writer.send(&Message::Live, TEST_TIMEOUT).await.unwrap();
    assert!(link.reader.next().await.is_err(), "an unexpected message");

    let edge = node();
    edge.resolver.set(&[origin.address]);
    assert!(edge.hub.find(&name()).await.is_ok());
}

/// Reply of the relay to a subscription.
pub(super) async fn subscribe_reply(address: SocketAddr) -> Option<Message> {
    let mut link = Link::connect(address, &secret(), TEST_TIMEOUT).await.ok()?;
    let subscribe =
        Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, max_hops: 1 };
    link.writer.send(&subscribe, TEST_TIMEOUT).await.ok()?;
    link.reader.next_within(TEST_TIMEOUT).await.ok()
}

#[tokio::test]
async fn full_relay_refuses_a_subscription_as_full_or_not_found() {
    let origin = node_with_one_slot();
    let _connection = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    assert_eq!(subscribe_reply(origin.address).await, Some(Message::Refused(Refusal::NotFound)));
    assert_eq!(RelayProbe::new(secret(), TEST_TIMEOUT).probe(&[origin.address], &name()).await, Ownership::NotHeld);
    let _publisher = TestPublisher::on_node(&origin, 50);
    assert_eq!(subscribe_reply(origin.address).await, Some(Message::Refused(Refusal::Full)));
    assert_eq!(RelayProbe::new(secret(), TEST_TIMEOUT).probe(&[origin.address], &name()).await, Ownership::Held);
    assert_eq!(origin.client.metrics().turned_away.get(), 4);
}

#[tokio::test]
async fn silent_connections_do_not_keep_an_edge_out() {
    let origin = node_with_one_slot();
    let _publisher = TestPublisher::on_node(&origin, 50);
    let mut flood = Vec::new();
    for _ in 0..2 * MAX_HANDSHAKES {
        flood.push(TcpStream::connect(origin.address).await.unwrap());
    }
    assert!(matches!(subscribe_reply(origin.address).await, Some(Message::Accepted { .. })));
    // The oldest were closed for the newer ones, before any handshake timed out.
    let (mut from_first, mut from_last) = ([0; 1], [0; 1]);
    let mut last = flood.pop().unwrap();
    tokio::select! {
        biased;
        read = flood[0].read(&mut from_first) => assert_eq!(read.unwrap_or(0), 0),
        _ = last.read(&mut from_last) => panic!("the newest connection was closed before the oldest one"),
    }
}

#[tokio::test]
async fn edge_waits_for_a_slot_at_a_full_origin_without_resolving_again() {
    let (origin, edge) = (node_with_one_slot(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let connection = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    let name = name();
    let viewer = edge.hub.find(&name);
    let freed = async {
        wait_until("tried often", || origin.client.metrics().turned_away.get() > 3).await;
        assert_eq!(edge.resolver.invalidations.load(Ordering::Relaxed), 0);
        drop(connection);
    };
    let (viewer, ()) = tokio::join!(viewer, freed);
    let viewer = viewer.expect("a slot becomes free");
    let _reads = viewer.consumer();
    wait_until("the location is confirmed", || edge.resolver.confirmations.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn viewer_of_a_stream_at_a_full_origin_receives_the_error_full() {
    let origin = node_with_one_slot();
    // The first refusal arrives within this time.
    let edge = node_with_timing(Timing { fetch_timeout: Duration::from_secs(5), ..test_timing() });
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let _connection = Link::connect(origin.address, &secret(), TEST_TIMEOUT).await.unwrap();
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), FindError::AtCapacity);
    // The stream is published on no node.
    let empty = node();
    empty.resolver.set(&[node().address]);
    assert_eq!(empty.hub.find(&name()).await.unwrap_err(), FindError::NotPublished);
}

#[tokio::test]
async fn edge_pulls_from_the_owner_when_the_edge_of_its_group_is_full() {
    let (origin, middle, edge) = (node(), node_with_one_slot(), node());
    middle.resolver.set(&[origin.address]);
    edge.resolver.set_through(&[middle.address], &[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let _connection = Link::connect(middle.address, &secret(), TEST_TIMEOUT).await.unwrap();
    assert!(edge.hub.find(&name()).await.is_ok());
    assert_eq!((middle.client.metrics().turned_away.get(), origin.client.metrics().edges.get()), (1, 1));
}

#[tokio::test]
async fn key_frame_request_of_a_viewer_reaches_the_publisher() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.send_frames(1);
    let here = edge.hub.find(&name()).await.unwrap();
    let _viewer = here.consumer();
    here.request_key_frame();
    wait_until("asked", || publisher.producer.take_key_frame_request()).await;
}

#[tokio::test]
async fn notices_about_a_stream_reach_every_node() {
    let (origin, edge) = (node(), node());
    edge.resolver.set(&[origin.address]);
    let mut publisher = TestPublisher::on_node(&origin, 50);
    publisher.producer.stream().add_notice("first", "One.");
    publisher.send_frames(1);
    let here = edge.hub.find(&name()).await.unwrap();
    let _viewer = here.consumer();
    assert_eq!(here.status().notices.len(), 1);
    publisher.producer.stream().add_notice("second", "Two.");
    wait_until("the second notice arrives", || here.status().notices.len() == 2).await;
}

#[tokio::test]
async fn publisher_may_move_to_a_node_that_has_its_viewers() {
    let (first, edge) = (node(), node());
    edge.resolver.set(&[first.address]);
    let mut publisher = TestPublisher::on_node(&first, 50);
    publisher.send_frames(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    first.task.abort();
    first.drain.cancel();
    let mut next_publisher = TestPublisher::on_node(&edge, 50);
    edge.resolver.set(&[edge.address]);
    next_publisher.send_frames(2);
    assert_eq!(marks(&mut viewer, 2).await, [0, 1]);
    assert_eq!(edge.hub.streams().len(), 1);
}

/// Forwards bytes until it is frozen; later connections are forwarded again.
pub(super) struct FreezableProxy {
    pub(super) address: SocketAddr,
    freeze_tx: tokio::sync::watch::Sender<u64>,
}

impl FreezableProxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, watch) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut watch = watch.clone();
                watch.mark_unchanged();
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                        _ = watch.changed() => {
                            // Both sockets stay open without traffic.
                            tokio::time::sleep(TEST_TIMEOUT).await;
                        }
                    }
                });
            }
        });
        Self { address, freeze_tx: frozen }
    }

    pub(super) fn freeze(&self) {
        self.freeze_tx.send_modify(|n| *n += 1);
    }
}

/// Probes until the result is `expected`. On a busy machine an answer may take longer than the
/// timeout of a probe, which is short so that a node without an answer does not take long.
async fn wait_ownership(probe: &RelayProbe, addresses: &[SocketAddr], expected: Ownership) {
    let probes = async { while probe.probe(addresses, &name()).await != expected {} };
    tokio::time::timeout(TEST_TIMEOUT, probes).await.unwrap_or_else(|_| panic!("the result is never {expected:?}"));
}

#[tokio::test]
async fn ownership_probe_distinguishes_held_not_held_and_no_answer() {
    let owner = node();
    let timeout = Duration::from_millis(300);
    let probe = RelayProbe::new(secret(), timeout);
    // The node does not know the stream.
    wait_ownership(&probe, &[owner.address], Ownership::NotHeld).await;
    let _publisher = TestPublisher::on_node(&owner, 25);
    wait_ownership(&probe, &[owner.address], Ownership::Held).await;
    // A node of another cluster.
    let other_probe = RelayProbe::new(ClusterSecret::new(b"a secret of another cluster").unwrap(), timeout);
    wait_ownership(&other_probe, &[owner.address], Ownership::Unknown).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    assert_eq!(probe.probe(&[silent_at], &name()).await, Ownership::NoAnswer, "it accepts connections and hangs");
    // The other address of the node answers.
    wait_ownership(&probe, &[silent_at, owner.address], Ownership::Held).await;
    drop(silent);
    assert_eq!(probe.probe(&[silent_at], &name()).await, Ownership::NotHeld, "no process listens there");
    assert_eq!(probe.probe(&[], &name()).await, Ownership::NoAnswer);
    // One address hangs, and a node of another cluster answers at the other.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    wait_ownership(&other_probe, &[silent.local_addr().unwrap(), owner.address], Ownership::Unknown).await;
}
