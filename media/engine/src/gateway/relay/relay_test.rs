//! Nodes that relay to each other over loopback, and strangers who try.

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

/// A stream of 25 pictures a second with a key frame every `group`.
struct Camera {
    producer: Producer,
    track: Arc<Track>,
    next: i64,
    group: i64,
}

impl Camera {
    fn on(node: &Node, group: i64) -> Self {
        // Two lives of a name never begin within the same millisecond; in a test they could.
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
async fn a_stream_of_another_node_starts_at_its_last_key_frame_and_keeps_its_numbers() {
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
async fn many_viewers_who_come_at_once_share_one_connection() {
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
async fn a_stream_that_nobody_has_is_not_found() {
    let (origin, edge) = (node(), node());
    assert!(edge.hub.find(&name()).await.is_err());
    // A registry that is wrong about it.
    edge.map.put(&[origin.address]);
    assert!(edge.hub.find(&name()).await.is_err());
    until("forgotten", || edge.relay.metrics().pulls.get() == 0).await;
}

#[tokio::test]
async fn a_pull_ends_when_the_last_viewer_has_gone() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let viewer = edge.hub.find(&name()).await.unwrap().consumer();
    until("served", || origin.relay.metrics().edges.get() == 1).await;
    drop(viewer);
    until("let go", || origin.relay.metrics().edges.get() == 0 && edge.relay.metrics().pulls.get() == 0).await;
    assert!(edge.hub.stream(&name()).is_none());
    assert!(edge.hub.find(&name()).await.is_ok());
}

#[tokio::test]
async fn viewers_of_an_edge_see_the_end_of_the_stream() {
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
async fn when_the_origin_dies_the_stream_goes_on_from_another_one_for_the_same_viewers() {
    let (first, second, edge) = (node(), node(), node());
    edge.map.put(&[first.address]);
    let mut camera = Camera::on(&first, 50);
    camera.shoot(110);
    let here = edge.hub.find(&name()).await.unwrap();
    let mut viewer = here.consumer();
    assert_eq!(marks(&mut viewer, 10).await.last(), Some(&109));
    // Killed: sockets close without a farewell, the publisher goes to another node.
    first.task.abort();
    first.drain.cancel();
    edge.map.put(&[second.address]);
    let mut again = Camera::on(&second, 50);
    again.shoot(3);
    let mut last = MediaTime::from_ms(109 * 40);
    for expect in 0..3 {
        let item = tokio::time::timeout(PATIENCE, viewer.next()).await.unwrap().expect("goes on");
        assert_eq!(mark(&item), expect);
        assert!(item.frame.dts > last, "time goes on");
        last = item.frame.dts;
        assert_eq!(item.life, again.producer.stream().started_at_ms());
        assert_eq!(item.in_its_life().dts.as_ms(), expect * 40, "as every other node has it");
        assert!(item.segment.number >= headwater_wire::segment::first_number(item.life));
    }
    assert!(Arc::ptr_eq(&here, &edge.hub.stream(&name()).unwrap()));
    assert_eq!(edge.relay.metrics().resumed.get(), 1);
}

#[tokio::test]
async fn a_life_that_has_no_picture_yet_begins_with_its_first() {
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
async fn an_origin_that_hangs_is_left_and_what_was_seen_is_not_seen_twice() {
    let (origin, edge) = (node(), node());
    let proxy = Proxy::before(origin.address).await;
    edge.map.put(&[proxy.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(60);
    let mut viewer = edge.hub.find(&name()).await.unwrap().consumer();
    assert_eq!(marks(&mut viewer, 10).await, (50..60).collect::<Vec<_>>());
    // Half open: nothing comes any more, and nothing is closed.
    proxy.freeze();
    camera.shoot(5);
    until("reconnected", || edge.relay.metrics().resumed.get() == 1).await;
    camera.shoot(5);
    assert_eq!(marks(&mut viewer, 10).await, (60..70).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_drained_origin_sends_its_edges_elsewhere() {
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
async fn viewers_of_a_stream_that_was_given_to_another_node_go_on_from_there() {
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
async fn without_a_source_for_too_long_viewers_see_the_end() {
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
async fn an_edge_of_an_edge_gets_the_same_numbers() {
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
async fn two_nodes_that_believe_each_other_do_not_go_round_in_circles() {
    let (one, two) = (node(), node());
    one.map.put_through(&[two.address], &[]);
    two.map.put_through(&[one.address], &[]);
    assert!(one.hub.find(&name()).await.is_err());
}

#[tokio::test]
async fn a_late_edge_gets_the_segments_that_others_list() {
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
    assert_eq!(marks(&mut second, 10).await, (250..260).collect::<Vec<_>>(), "live viewers start live");
    let mut third = here.consumer_of_history();
    assert_eq!(marks(&mut third, 210).await, (50..260).collect::<Vec<_>>(), "packagers get what others have");
}

#[tokio::test]
async fn an_edge_that_reads_too_slowly_is_moved_to_a_key_frame_and_the_stream_goes_on() {
    let origin = node();
    let mut camera = Camera::on(&origin, 50);
    camera.shoot_sized(1, 100_000);
    let mut link = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    let wish = Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, reach: 1 };
    link.outgoing.say(&wish, PATIENCE).await.unwrap();
    while link.incoming.next().await.unwrap() != Message::Live {}
    // 40 MB while nobody reads: more than any socket holds, and the writer is never held up.
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
async fn whoever_does_not_know_the_secret_gets_nothing() {
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
async fn a_recorded_conversation_is_refused_when_it_is_played_again() {
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
    // The end may be a reset.
    assert_eq!(again.read(&mut [0; 1]).await.unwrap_or(0), 0);
    until("counted", || origin.relay.metrics().strangers.get() == 1).await;
}

#[tokio::test]
async fn garbage_before_and_after_the_handshake_ends_only_its_own_connection() {
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
    // Four gigabytes are announced.
    socket.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or(0), 0);

    let mut link = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    link.outgoing.say(&Message::Live, PATIENCE).await.unwrap();
    assert!(link.incoming.next().await.is_err(), "a message out of place");

    let edge = node();
    edge.map.put(&[origin.address]);
    assert!(edge.hub.find(&name()).await.is_ok());
}

/// What the relay answers to who wants the stream.
async fn wished(address: SocketAddr) -> Option<Message> {
    let mut link = Link::dial(address, &secret(), PATIENCE).await.ok()?;
    let wish = Message::Subscribe { app: "live".to_owned(), stream_id: "demo".to_owned(), history: false, reach: 1 };
    link.outgoing.say(&wish, PATIENCE).await.ok()?;
    link.incoming.next_within(PATIENCE).await.ok()
}

#[tokio::test]
async fn one_connection_beyond_the_limit_is_told_that_there_is_no_place_or_no_such_stream() {
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
async fn a_flood_at_a_full_relay_is_closed_without_a_word_and_the_relay_serves_on() {
    let origin = node_with(secret(), 1);
    let _camera = Camera::on(&origin, 50);
    let held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    // They say nothing: the first few are listened to for a moment, the others are closed at once.
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
async fn an_edge_waits_for_a_place_at_a_full_origin_and_looks_nothing_up_meanwhile() {
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
    let viewer = viewer.expect("a place in the end");
    let _reads = viewer.consumer();
    until("that it flows is told", || edge.map.flowed.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn who_waits_in_vain_for_a_place_at_a_full_origin_is_told_that_it_is_full() {
    let (origin, edge) = (node_with(secret(), 1), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.shoot(1);
    let _held = Link::dial(origin.address, &secret(), PATIENCE).await.unwrap();
    assert_eq!(edge.hub.find(&name()).await.unwrap_err(), Missing::Full);
    // Nobody publishes this one, there or anywhere.
    let empty = node();
    empty.map.put(&[node().address]);
    assert_eq!(empty.hub.find(&name()).await.unwrap_err(), Missing::Unknown);
}

#[tokio::test]
async fn an_edge_whose_groups_edge_is_full_goes_to_the_owner_itself() {
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
async fn a_key_frame_that_a_viewer_wants_is_asked_of_the_publisher() {
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
async fn what_the_publisher_should_change_is_known_on_every_node() {
    let (origin, edge) = (node(), node());
    edge.map.put(&[origin.address]);
    let mut camera = Camera::on(&origin, 50);
    camera.producer.stream().notice("first", "One.");
    camera.shoot(1);
    let here = edge.hub.find(&name()).await.unwrap();
    let _viewer = here.consumer();
    assert_eq!(here.status().notices.len(), 1);
    camera.producer.stream().notice("second", "Two.");
    until("told", || here.status().notices.len() == 2).await;
}

#[tokio::test]
async fn a_publisher_may_come_to_a_node_that_has_its_viewers() {
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

/// Passes bytes on until it is told to stop; what comes later is passed on again.
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
                            // Both sockets stay open and say nothing.
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
async fn an_owner_that_is_asked_says_what_it_has_and_silence_says_nothing() {
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
    assert_eq!(inquiry.ask(&[silent_at], &name()).await, Holds::Silent, "it takes connections and hangs");
    assert_eq!(inquiry.ask(&[silent_at, owner.address], &name()).await, Holds::Yes, "its other address");
    drop(silent);
    assert_eq!(inquiry.ask(&[silent_at], &name()).await, Holds::No, "nothing runs there");
    assert_eq!(inquiry.ask(&[], &name()).await, Holds::Silent);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = [silent.local_addr().unwrap(), owner.address];
    assert_eq!(other.ask(&both, &name()).await, Holds::Unknown, "one address hangs, and somebody is at the other");
}
