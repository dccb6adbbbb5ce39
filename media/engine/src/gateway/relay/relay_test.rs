//! Tests of nodes that relay to each other over loopback, and of unauthenticated peers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::{StreamName, config};
use headwater_wire::relay::{ClusterSecret, Dial, Message, Refusal, SERVER_HELLO_BYTES};
use headwater_wire::{Codec, Frame, MediaTime, Track, VideoTrack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::{AskOwner as _, Holds, Inquiry, Locate, Located, Locating, Relay, Server, Timing};
use crate::hub::{Consumer, Hub, Item, Limits, Missing, Producer};

#[derive(Debug, Default)]
struct Map {
    places: Mutex<HashMap<StreamName, Located>>,
    asked: AtomicUsize,
    doubted: AtomicUsize,
    flowed: AtomicUsize,
}

impl Map {
    fn put(&self, at: &[SocketAddr]) {
        self.places.lock().unwrap().insert(name(), Located::at(at.to_vec()));
    }

    fn put_through(&self, at: &[SocketAddr], owner: &[SocketAddr]) {
        self.places.lock().unwrap().insert(name(), Located { relays: at.to_vec(), beyond: Some(owner.to_vec()) });
    }
}

impl Locate for Map {
    fn locate<'a>(&'a self, name: &'a StreamName) -> Locating<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.places.lock().unwrap().get(name).cloned();
        Box::pin(async move { found })
    }

    fn doubt(&self, _: &StreamName) {
        self.doubted.fetch_add(1, Ordering::Relaxed);
    }

    fn flows(&self, _: &StreamName) {
        self.flowed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Node {
    hub: Hub,
    relay: Relay,
    map: Arc<Map>,
    address: SocketAddr,
    drain: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn name() -> StreamName {
    StreamName::new("live", "demo").unwrap()
}

fn secret() -> ClusterSecret {
    ClusterSecret::new(b"a secret of the cluster").unwrap()
}

fn short() -> Timing {
    Timing {
        ping: Duration::from_millis(40),
        silence: Duration::from_millis(400),
        grace: Duration::from_millis(200),
        linger: Duration::from_secs(2),
        ..Timing::default()
    }
}

fn node_with(secret: ClusterSecret, max_connections: usize) -> Node {
    let map = Arc::new(Map::default());
    let relay = Relay::new(secret, Arc::clone(&map) as Arc<dyn Locate>, short());
    let hub = Hub::new(Limits::default());
    hub.join(Box::new(relay.clone()), None);
    let listen = "127.0.0.1:0".parse().unwrap();
    let config =
        config::Relay { listen, max_connections: max_connections.try_into().unwrap(), ..config::Relay::default() };
    let server = Server::bind(&config).unwrap();
    let (address, drain) = (server.local_addr(), CancellationToken::new());
    let task = tokio::spawn(server.run(hub.clone(), relay.clone(), drain.clone()));
    Node { hub, relay, map, address, drain, task }
}

fn node() -> Node {
    node_with(secret(), 50)
}

/// Publishes a stream of 25 frames per second with a key frame every `gop_frames`.
struct Camera {
    producer: Producer,
    track: Arc<Track>,
    next: i64,
    group: i64,
}

impl Camera {
    fn on(node: &Node, group: i64) -> Self {
        // Two generations of a name never begin within the same millisecond; in a test they could.
        let life = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let begun = life();
        while life() == begun {
            std::thread::yield_now();
        }
        let track = Arc::new(Track {
            codec: Codec::H264,
            config: Bytes::from_static(b"config"),
            codec_string: Some("avc1.42001f".to_owned()),
            video: Some(VideoTrack { width: 640, height: 360, reorder_frames: Some(0) }),
            audio: None,
        });
        Self { producer: node.hub.publish(&name(), "test").unwrap(), track, next: 0, group }
    }

    fn shoot(&mut self, count: i64) {
        self.shoot_sized(count, 8);
    }

    fn shoot_sized(&mut self, count: i64, bytes: usize) {
        for _ in 0..count {
            let t = MediaTime::from_ms(self.next * 40);
            let mut payload = vec![0; bytes];
            payload[..8].copy_from_slice(&self.next.to_be_bytes());
            self.producer.send(Frame {
                track: Arc::clone(&self.track),
                dts: t,
                pts: t,
                key: self.next % self.group == 0,
                payload: payload.into(),
            });
            self.next += 1;
        }
    }
}

fn mark(item: &Item) -> i64 {
    i64::from_be_bytes(*item.frame.payload.first_chunk().unwrap())
}

async fn marks(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut marks = Vec::new();
    while marks.len() < count {
        let item = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("in time").expect("not ended");
        marks.push(mark(&item));
    }
    marks
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect(what);
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn pulled_stream_starts_at_the_last_key_frame_and_keeps_segment_numbers() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(120);
    let here = edge.hub.find(&name()).await.expect("found");
    assert_eq!(here.started_at_ms(), camera.producer.stream().started_at_ms());
    let (mut far, mut near) = (here.consumer(), camera.producer.stream().consumer());
    camera.shoot(30);
    for expect in 100..150 {
        let (far, near) = (far.next().await.unwrap(), near.next().await.unwrap());
        assert_eq!((mark(&far), mark(&near)), (expect, expect));
        assert_eq!((far.segment, far.life), (near.segment, near.life));
        assert_eq!((far.frame.dts, far.frame.pts, far.frame.key), (near.frame.dts, near.frame.pts, near.frame.key));
        assert_eq!(far.frame.track, near.frame.track);
    }
}

#[tokio::test]
async fn concurrent_viewers_share_one_relay_connection() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let hub = edge.hub.clone();
            tokio::spawn(async move { hub.find(&name()).await.expect("found").epoch() })
        })
        .collect();
    let mut epochs = Vec::new();
    for asked in asking {
        epochs.push(asked.await.unwrap());
    }
    epochs.dedup();
    assert_eq!((epochs.len(), origin.relay.metrics().accepted.get()), (1, 1));
}

#[tokio::test]
async fn stream_that_no_node_has_is_not_found() {
    let (origin, edge) = (node(), node());
    assert!(edge.hub.find(&name()).await.is_err());
    // The registry names a node that does not have the stream.
    edge.map.put(&[origin.address]);
    assert!(edge.hub.find(&name()).await.is_err());
    until("the pull ended", || edge.relay.metrics().pulls.get() == 0).await;
}

#[tokio::test]
async fn pull_ends_after_the_last_viewer_has_left() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let viewer = edge.hub.find(&name()).await.unwrap().consumer();
    until("served", || origin.relay.metrics().edges.get() == 1).await;
    drop(viewer);
    until("the pull ended without viewers", || origin.relay.metrics().edges.get() == 0 && edge.relay.metrics().pulls.get() == 0).await;
    assert!(edge.hub.stream(&name()).is_none());
    assert!(edge.hub.find(&name()).await.is_ok());
}

#[tokio::test]
async fn stream_ends_at_the_edge_when_the_publisher_ends_it() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(2);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    assert_eq!(marks(&mut viewer, 2).await, [0, 1]);
    drop(camera);
    assert!(tokio::time::timeout(PATIENCE, viewer.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn stream_continues_from_another_origin_after_the_first_one_is_killed() {
    let (first, second, edge) = (node(), node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(110);
    let here = edge.hub.find(&name()).await.unwrap();
    let mut viewer = here.consumer();
    assert_eq!(marks(&mut viewer, 10).await.last(), Some(&109));
    // Killed: sockets close without an end message, and the publisher moves to another node.
    first.task.abort();
    first.drain.cancel();
    edge.map.put(&[second.address]);
    let mut again = Camera::on(&second, 50);
    again.shoot(3);
    let mut last = MediaTime::from_ms(109 * 40);
    for expect in 0..3 {
        let item = tokio::time::timeout(PATIENCE, viewer.next()).await.unwrap().expect("goes on");
        assert_eq!(mark(&item), expect);
        assert!(item.frame.dts > last, "timestamps increase");
        last = item.frame.dts;
        assert_eq!(item.life, again.producer.stream().started_at_ms());
        assert_eq!(item.in_its_life().dts.as_ms(), expect * 40, "the same as on every other node");
        assert!(item.segment.number >= headwater_wire::segment::first_number(item.life));
    }
    assert!(Arc::ptr_eq(&here, &edge.hub.stream(&name()).unwrap()));
    assert_eq!(edge.relay.metrics().resumed.get(), 1);
}

#[tokio::test]
async fn generation_without_a_frame_begins_with_its_first_frame() {
    let (first, second, edge) = (node(), node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    first.task.abort();
    first.drain.cancel();
    let mut again = Camera::on(&second, 50);
    edge.map.put(&[second.address]);
    until("reconnected", || edge.relay.metrics().resumed.get() == 1).await;
    again.shoot(1);
    let item = tokio::time::timeout(PATIENCE, viewer.next()).await.unwrap().expect("goes on");
    assert_eq!(item.life, again.producer.stream().started_at_ms());
}

#[tokio::test]
async fn edge_reconnects_when_the_origin_hangs_and_repeats_no_frame() {
    let (origin, edge) = (node(), node());
    let proxy = Proxy::before(origin.address).await;
    edge.map.put(&[proxy.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(60);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    assert_eq!(marks(&mut viewer, 10).await, (50..60).collect::<Vec<_>>());
    // Half open: no more bytes arrive, and no socket is closed.
    proxy.freeze();
    camera.shoot(5);
    until("reconnected", || edge.relay.metrics().resumed.get() == 1).await;
    camera.shoot(5);
    assert_eq!(marks(&mut viewer, 10).await, (60..70).collect::<Vec<_>>());
}

#[tokio::test]
async fn draining_origin_sends_its_edges_to_another_source() {
    let (first, second, edge) = (node(), node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    edge.map.put(&[second.address]);
    first.drain.cancel();
    drop(camera);
    let mut again = Camera::on(&second, 50);
    again.shoot(1);
    assert_eq!(marks(&mut viewer, 1).await, [0]);
    tokio::time::timeout(PATIENCE, first.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn viewers_of_a_revoked_stream_continue_from_its_new_owner() {
    let (first, second, edge) = (node(), node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    let mut again = Camera::on(&second, 50);
    again.shoot(1);
    edge.map.put(&[second.address]);
    camera.producer.stream().revoke();
    assert_eq!(marks(&mut viewer, 1).await, [0]);
}

#[tokio::test]
async fn stream_ends_when_no_source_is_found_within_the_search_timeout() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    edge.map.places.lock().unwrap().clear();
    origin.drain.cancel();
    assert!(tokio::time::timeout(PATIENCE, viewer.next()).await.unwrap().is_none());
    assert_eq!(edge.relay.metrics().given_up.get(), 1);
}

#[tokio::test]
async fn edge_of_an_edge_receives_the_same_stream() {
    let (origin, middle, edge) = (node(), node(), node());
    middle.map.put(&[origin.address]);
    edge.map.put_through(&[middle.address], &[]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(60);
    let here = edge.hub.find(&name()).await.expect("through the middle");
    let mut viewer = here.consumer();
    camera.shoot(1);
    assert_eq!(marks(&mut viewer, 11).await, (50..61).collect::<Vec<_>>());
    assert_eq!(here.started_at_ms(), camera.producer.stream().started_at_ms());
    assert_eq!(middle.hub.streams().len(), 1);
}

#[tokio::test]
async fn two_nodes_that_name_each_other_as_source_do_not_loop() {
    let (one, two) = (node(), node());
    one.map.put_through(&[two.address], &[]);
    two.map.put_through(&[one.address], &[]);
    assert!(one.hub.find(&name()).await.is_err());
}

#[tokio::test]
async fn late_edge_receives_the_segments_that_other_edges_list() {
    let (origin, early, late) = (node(), node(), node());
    early.map.put(&[origin.address]);
    late.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(60);
    let mut first = early.hub.find(&name()).await.unwrap().consumer_of_history();
    for seen in [60, 110, 160, 210] {
        marks(&mut first, if seen == 60 { 10 } else { 50 }).await;
        camera.shoot(50);
    }
    assert_eq!(marks(&mut first, 50).await, (210..260).collect::<Vec<_>>());
    let here = late.hub.find(&name()).await.unwrap();
    let mut second = here.consumer();
    assert_eq!(marks(&mut second, 10).await, (250..260).collect::<Vec<_>>(), "live viewers start at the last key frame");
    let mut third = here.consumer_of_history();
    assert_eq!(marks(&mut third, 210).await, (50..260).collect::<Vec<_>>(), "packagers receive the history");
}

#[tokio::test]
async fn slow_edge_skips_to_a_key_frame_without_blocking_the_stream() {
    let origin = node();
    let mut camera = Camera::on(&origin, 50);
    camera.shoot_sized(1, 100_000);
    let mut link = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    let wish = Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, reach: 1 };
    link.outgoing.say(&wish, PATIENCE).await.unwrap();
    while link.incoming.next().await.unwrap() != Message::Live {}
    // 40 MB while the edge does not read: more than any socket buffer holds.
    let mut neighbour = camera.producer.stream().consumer();
    for _ in 0..400 {
        camera.shoot_sized(1, 100_000);
        while let crate::hub::Next::Item(_) = neighbour.try_next() {}
        tokio::task::yield_now().await;
    }
    let (mut got, mut gaps) = (Vec::new(), Vec::new());
    while got.last() != Some(&400) {
        if let Message::Frame(media) = link.incoming.next().await.unwrap() {
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
    let edge = node_with(ClusterSecret::new(b"the secret of another cluster").unwrap(), 9);
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    assert!(edge.hub.find(&name()).await.is_err());
    assert!(origin.relay.metrics().strangers.get() > 0);
    assert_eq!(origin.relay.metrics().edges.get(), 0);
}

#[tokio::test]
async fn replayed_handshake_is_refused() {
    let origin = node();
    let (dial, hello) = Dial::new(&secret(), [7; 32]);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut server = [0; SERVER_HELLO_BYTES];
    socket.read_exact(&mut server).await.unwrap();
    let (proof, _) = dial.on_hello(&server).unwrap();
    let mut again = TcpStream::connect(origin.address).await.unwrap();
    again.write_all(&hello).await.unwrap();
    again.read_exact(&mut server).await.unwrap();
    again.write_all(&proof).await.unwrap();
    // The connection may be reset instead of closed.
    assert_eq!(again.read(&mut [0; 1]).await.unwrap_or(0), 0);
    until("counted", || origin.relay.metrics().strangers.get() == 1).await;
}

#[tokio::test]
async fn garbage_before_or_after_the_handshake_closes_only_its_own_connection() {
    let origin = node();
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&[0x5a; 4_096]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);

    let (dial, hello) = Dial::new(&secret(), [7; 32]);
    let mut socket = TcpStream::connect(origin.address).await.unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut server = [0; SERVER_HELLO_BYTES];
    socket.read_exact(&mut server).await.unwrap();
    let (proof, _) = dial.on_hello(&server).unwrap();
    socket.write_all(&proof).await.unwrap();
    // A record of four gigabytes is announced.
    socket.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);

    let mut link = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    link.outgoing.say(&Message::Live, PATIENCE).await.unwrap();
    assert!(link.incoming.next().await.is_err(), "an unexpected message");

    let edge = node();
    edge.map.put(&[origin.address]);
    assert!(edge.hub.find(&name()).await.is_ok());
}

/// Reply of the relay to a subscription.
async fn wished(address: SocketAddr) -> Option<Message> {
    let mut link = Link::dial(address, &secret(), PATIENCE).await.ok()?;
    let wish = Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, reach: 1 };
    link.outgoing.say(&wish, PATIENCE).await.ok()?;
    link.incoming.next_within(PATIENCE).await.ok()
}

#[tokio::test]
async fn full_relay_refuses_a_subscription_as_full_or_not_found() {
    let origin = node_with(secret(), 1);
    let _held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    assert_eq!(wished(origin.address).await, Some(Message::Refused(Refusal::NotFound)));
    assert_eq!(Inquiry::new(secret(), PATIENCE).ask(&[origin.address], &name()).await, Holds::No);
    let _camera = Camera::on(&origin, 50);
    assert_eq!(wished(origin.address).await, Some(Message::Refused(Refusal::Full)));
    assert_eq!(Inquiry::new(secret(), PATIENCE).ask(&[origin.address], &name()).await, Holds::Yes);
    assert_eq!(origin.relay.metrics().turned_away.get(), 4);
}

#[tokio::test]
async fn flood_at_a_full_relay_is_closed_without_a_reply() {
    let origin = node_with(secret(), 1);
    let _camera = Camera::on(&origin, 50);
    let held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    // They send nothing: the first few may send a handshake, the others are closed at once.
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(TcpStream::connect(origin.address).await.unwrap());
    }
    until("turned away", || origin.relay.metrics().turned_away.get() == 100).await;
    let last = tokio::time::timeout(Duration::from_millis(500), flood.pop().unwrap().read(&mut [0; 1])).await;
    assert_eq!(last.expect("closed at once").unwrap_or(0), 0);
    drop((held, flood));
    let mut answer = None;
    while !matches!(answer, Some(Message::Accepted { .. })) {
        answer = wished(origin.address).await;
    }
}

#[tokio::test]
async fn edge_waits_for_a_slot_at_a_full_origin_without_resolving_again() {
    let (origin, edge) = (node_with(secret(), 1), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    let name = name();
    let viewer = edge.hub.find(&name);
    let freed = async {
        until("tried often", || origin.relay.metrics().turned_away.get() > 3).await;
        assert_eq!(edge.map.doubted.load(Ordering::Relaxed), 0);
        drop(held);
    };
    let (viewer, ()) = tokio::join!(viewer, freed);
    let viewer = viewer.expect("a slot becomes free");
    let _reads = viewer.consumer();
    until("the location is confirmed", || edge.map.flowed.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn viewer_of_a_stream_at_a_full_origin_receives_the_error_full() {
    let (origin, edge) = (node_with(secret(), 1), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let _held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), Missing::Full);
    // The stream is published on no node.
    let empty = node();
    empty.map.put(&[node().address]);
    assert_eq!(empty.hub.find(&name()).await.unwrap_err(), Missing::Unknown);
}

#[tokio::test]
async fn edge_pulls_from_the_owner_when_the_edge_of_its_group_is_full() {
    let (origin, middle, edge) = (node(), node_with(secret(), 1), node());
    middle.map.put(&[origin.address]);
    edge.map.put_through(&[middle.address], &[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let _held = Link::dial(middle.address, &secret(), PATIENCE).await.unwrap();
    assert!(edge.hub.find(&name()).await.is_ok());
    assert_eq!((middle.relay.metrics().turned_away.get(), origin.relay.metrics().edges.get()), (1, 1));
}

#[tokio::test]
async fn key_frame_request_of_a_viewer_reaches_the_publisher() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let here = edge.hub.find(&name()).await.unwrap();
    let _viewer = here.consumer();
    here.request_key_frame();
    until("asked", || camera.producer.take_key_frame_request()).await;
}

#[tokio::test]
async fn notices_about_a_stream_reach_every_node() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.producer.stream().notice("first", "One.");
    camera.shoot(1);
    let here = edge.hub.find(&name()).await.unwrap();
    let _viewer = here.consumer();
    assert_eq!(here.status().notices.len(), 1);
    camera.producer.stream().notice("second", "Two.");
    until("the second notice arrives", || here.status().notices.len() == 2).await;
}

#[tokio::test]
async fn publisher_may_move_to_a_node_that_has_its_viewers() {
    let (first, edge) = (node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(1);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    marks(&mut viewer, 1).await;
    first.task.abort();
    first.drain.cancel();
    let mut again = Camera::on(&edge, 50);
    edge.map.put(&[edge.address]);
    again.shoot(2);
    assert_eq!(marks(&mut viewer, 2).await, [0, 1]);
    assert_eq!(edge.hub.streams().len(), 1);
}

/// Forwards bytes until it is frozen; later connections are forwarded again.
struct Proxy {
    address: SocketAddr,
    frozen: tokio::sync::watch::Sender<u64>,
}

impl Proxy {
    async fn before(target: SocketAddr) -> Self {
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
                            tokio::time::sleep(PATIENCE).await;
                        }
                    }
                });
            }
        });
        Self { address, frozen }
    }

    fn freeze(&self) {
        self.frozen.send_modify(|n| *n += 1);
    }
}

#[tokio::test]
async fn ownership_probe_distinguishes_held_not_held_and_no_answer() {
    let owner = node();
    let patience = Duration::from_millis(300);
    let inquiry = Inquiry::new(secret(), patience);
    assert_eq!(inquiry.ask(&[owner.address], &name()).await, Holds::No, "it does not know the stream");
    let _camera = Camera::on(&owner, 25);
    assert_eq!(inquiry.ask(&[owner.address], &name()).await, Holds::Yes);
    let other = Inquiry::new(ClusterSecret::new(b"a secret of another cluster").unwrap(), patience);
    assert_eq!(other.ask(&[owner.address], &name()).await, Holds::Unknown, "a node of another cluster");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    assert_eq!(inquiry.ask(&[silent_at], &name()).await, Holds::Silent, "it accepts connections and hangs");
    assert_eq!(inquiry.ask(&[silent_at, owner.address], &name()).await, Holds::Yes, "its other address");
    drop(silent);
    assert_eq!(inquiry.ask(&[silent_at], &name()).await, Holds::No, "no process listens there");
    assert_eq!(inquiry.ask(&[], &name()).await, Holds::Silent);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = [silent.local_addr().unwrap(), owner.address];
    assert_eq!(other.ask(&both, &name()).await, Holds::Unknown, "one address hangs, and a node of another cluster answers at the other");
}
