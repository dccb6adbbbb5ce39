//! Tests of a worker with real datagrams: key frame requests from a viewer's sealed RTCP datagram
//! to the hub's producer, and checks with forged source addresses.

use std::net::UdpSocket;

use headwater_api::StreamName;
use headwater_wire::webrtc::Fingerprint;
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::gateway::webrtc::play::datagrams::KEY_FRAME_REQUEST_INTERVAL;
use crate::gateway::webrtc::play::worker_handle::WorkerHandle;
use crate::gateway::webrtc::transport::ice::generate_credentials;
use crate::gateway::webrtc::transport::test_peer::{self, TestPeer};
use crate::hub::{self, Hub, Producer, Stream};
use crate::runtime::client_pool::SharePolicy;

const PROFILE: ProtectionProfile = ProtectionProfile::AeadAes128Gcm;

/// A worker with one connected viewer. The handshake is replaced by fixed keys.
struct ConnectedViewer {
    _hub: Hub,
    producer: Producer,
    worker: Worker,
    /// The viewer's socket: what is sent to it can be received.
    socket: UdpSocket,
    peer: TestPeer,
    /// Seals the viewer's RTCP packets.
    rtcp: Context,
    /// SSRC of the video track.
    video_ssrc: u32,
}

/// The handles of a worker that no thread runs.
fn worker() -> (Worker, [WorkerHandle; 1]) {
    let socket = Socket::bind(0).unwrap();
    let (mailbox, liveness) = (Arc::new(Mailbox::new(socket.wake_handle())), Arc::new(Liveness::new()));
    let handle =
        WorkerHandle { mailbox: Arc::clone(&mailbox), liveness: Arc::clone(&liveness), candidates: Vec::new() };
    let context = SharedContext {
        identity: Arc::new(Identity::new().unwrap()),
        metrics: Metrics::default(),
        events: EventBus::default(),
        directory: Arc::new(SessionDirectory::new(10, 10, 1, &SharePolicy::new(&headwater_api::Config::default()))),
        limits: Limits::default(),
    };
    (Worker::new(socket, mailbox, liveness, context), [handle])
}

/// Adds a session for the video of a stream. Returns its slot and its peer.
fn join(worker: &mut Worker, handles: &[WorkerHandle], stream: &Arc<Stream>) -> (usize, TestPeer) {
    let (id, local, remote) = (SessionId::random(), generate_credentials(), generate_credentials());
    worker.context.directory.add(id, stream.name(), handles, [127, 0, 0, 1].into()).unwrap();
    worker.join(NewSession {
        id,
        stream: Arc::clone(stream),
        local: local.clone(),
        remote: remote.clone(),
        fingerprint: Fingerprint::of(b"a certificate"),
        packetizers: vec![(StreamPacketizer::spawn(stream, MediaKind::Video), 96)],
    });
    (worker.by_id[&id], TestPeer::new(remote, local))
}

impl ConnectedViewer {
    /// Must be called within a Tokio runtime, which the packetizer needs.
    fn connect() -> Self {
        let hub = Hub::new(hub::Limits::default());
        let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
        let stream = Arc::clone(producer.stream());
        let (mut worker, handles) = worker();
        let (slot, peer) = join(&mut worker, &handles, &stream);
        let video_ssrc = worker.sessions[slot].as_ref().unwrap().packetizers[0].0.ssrc;
        let (srtp, rtcp) = keys(&worker.context.identity);
        let mut viewer = Self { _hub: hub, producer, worker, socket: test_peer::bind(), peer, rtcp, video_ssrc };
        viewer.prove(Instant::now());
        viewer.worker.connect(Instant::now(), slot, srtp);
        viewer
    }

    /// Checks the node from the viewer's socket, and answers the node's checks.
    fn prove(&mut self, at: Instant) {
        let check = self.peer.check(true);
        deliver(&mut self.worker, at, &self.socket, &check);
        answer(&mut self.worker, at, &self.socket, &self.peer);
    }

    /// Returns the address that media is sent to.
    fn media_address(&self) -> Option<SocketAddr> {
        self.worker.sessions[0].as_ref().unwrap().send_state.selected_pair.map(|pair| pair.remote)
    }

    /// Sends an RTCP packet and returns whether the publisher receives a key frame request.
    fn requests_key_frame(&mut self, at: Instant, packet: &[u8]) -> bool {
        let sealed = self.rtcp.encrypt_rtcp(packet).unwrap();
        deliver(&mut self.worker, at, &self.socket, &sealed);
        self.producer.take_key_frame_request()
    }
}

/// Returns the ciphers of the server and of the viewer.
fn keys(identity: &Identity) -> (SrtpSession, Context) {
    let crypto = identity.provider.crypto();
    let mut config = Config { profile: PROFILE, ..Config::default() };
    let keying: Vec<u8> = (0..config.keying_material_len()).map(|i| i as u8 * 3).collect();
    config.set_session_keys_from_keying_material(&keying, true).unwrap();
    let (key, salt) = (&config.keys.local_master_key, &config.keys.local_master_salt);
    let viewer = Context::new(key, salt, PROFILE, None, None, crypto).unwrap();
    (SrtpSession::new(PROFILE, &keying, crypto).unwrap(), viewer)
}

/// Delivers a datagram that comes, or claims to come, from a socket.
fn deliver(worker: &mut Worker, at: Instant, from: &UdpSocket, datagram: &[u8]) {
    worker.on_datagram(at, &test_peer::pair(from), datagram);
    worker.socket.flush();
}

/// Answers the checks of the node that have arrived at a socket. Returns their number.
fn answer(worker: &mut Worker, now: Instant, at: &UdpSocket, peer: &TestPeer) -> usize {
    let answers: Vec<_> = test_peer::received(at).iter().filter_map(|datagram| peer.answer(datagram, at)).collect();
    answers.iter().for_each(|answer| deliver(worker, now, at, answer));
    answers.len()
}

/// Encodes a picture loss indication (RFC 4585 §6.3.1).
fn pli(ssrc: u32) -> Vec<u8> {
    [&[0x81, 206, 0, 2, 0, 0, 0, 1], &ssrc.to_be_bytes()[..]].concat()
}

/// Encodes a full intra request (RFC 5104 §4.3.1).
fn fir(ssrc: u32) -> Vec<u8> {
    [&[0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0], &ssrc.to_be_bytes()[..], &[7, 0, 0, 0]].concat()
}

#[tokio::test]
async fn publisher_is_asked_for_a_key_frame_if_the_ring_has_none() {
    let viewer = ConnectedViewer::connect();
    assert!(viewer.producer.take_key_frame_request());
    assert!(!viewer.producer.take_key_frame_request());
}

#[tokio::test]
async fn key_frame_requests_of_a_viewer_reach_the_publisher_at_a_limited_rate() {
    let mut viewer = ConnectedViewer::connect();
    viewer.producer.take_key_frame_request();
    let (pli, fir, begin) = (pli(viewer.video_ssrc), fir(viewer.video_ssrc), Instant::now());
    let almost = KEY_FRAME_REQUEST_INTERVAL - Duration::from_millis(1);
    assert!(viewer.requests_key_frame(begin, &pli));
    assert!(!viewer.producer.take_key_frame_request());
    assert!(!viewer.requests_key_frame(begin, &pli));
    assert!(!viewer.requests_key_frame(begin + almost, &fir));
    assert!(viewer.requests_key_frame(begin + KEY_FRAME_REQUEST_INTERVAL, &fir));
    assert!(!viewer.requests_key_frame(begin + KEY_FRAME_REQUEST_INTERVAL + almost, &pli));
    assert!(viewer.requests_key_frame(begin + 2 * KEY_FRAME_REQUEST_INTERVAL, &pli));
    assert_eq!(viewer.worker.context.metrics.key_frame_requests.get(), 6);
}

#[tokio::test]
async fn key_frame_request_for_a_foreign_ssrc_is_ignored_and_not_rate_limited() {
    let mut viewer = ConnectedViewer::connect();
    viewer.producer.take_key_frame_request();
    let (other_ssrc, begin) = (viewer.video_ssrc ^ 1, Instant::now());
    assert!(!viewer.requests_key_frame(begin, &pli(other_ssrc)));
    assert!(!viewer.requests_key_frame(begin, &fir(other_ssrc)));
    assert_eq!(viewer.worker.context.metrics.key_frame_requests.get(), 2);
    assert!(viewer.requests_key_frame(begin, &pli(viewer.video_ssrc)));
}

#[tokio::test]
async fn forged_check_does_not_redirect_media() {
    let mut viewer = ConnectedViewer::connect();
    let (own, victim, begin) = (viewer.socket.local_addr().unwrap(), test_peer::bind(), Instant::now());
    assert_eq!(viewer.media_address(), Some(own));
    let mut forged_bytes = 0;
    for n in 0..20 {
        let check = viewer.peer.check(true);
        forged_bytes += check.len();
        deliver(&mut viewer.worker, begin + Duration::from_secs(n), &victim, &check);
        answer(&mut viewer.worker, begin + Duration::from_secs(n), &viewer.socket, &viewer.peer);
        viewer.worker.check_session(0, begin + Duration::from_secs(n));
        viewer.worker.socket.flush();
        assert_eq!(viewer.media_address(), Some(own), "after {n} s");
    }
    let received: usize = test_peer::received(&victim).iter().map(Vec::len).sum();
    assert!(received > 0 && received <= 3 * forged_bytes, "{received} bytes for {forged_bytes}");
}

#[tokio::test]
async fn viewer_that_moves_receives_media_once_its_new_address_answers() {
    let mut viewer = ConnectedViewer::connect();
    let now = Instant::now();
    let old = std::mem::replace(&mut viewer.socket, test_peer::bind());
    let check = viewer.peer.check(true);
    deliver(&mut viewer.worker, now, &viewer.socket, &check);
    assert_eq!(viewer.media_address(), old.local_addr().ok());
    assert!(answer(&mut viewer.worker, now, &viewer.socket, &viewer.peer) > 0);
    assert_eq!(viewer.media_address(), viewer.socket.local_addr().ok());
}

#[tokio::test]
async fn media_pauses_without_answers_and_continues_with_the_next_one() {
    let mut viewer = ConnectedViewer::connect();
    let begin = Instant::now();
    viewer.worker.check_session(0, begin);
    viewer.worker.socket.flush();
    assert_eq!(answer(&mut viewer.worker, begin, &viewer.socket, &viewer.peer), 1);
    for seconds in 1..=30 {
        viewer.worker.check_session(0, begin + Duration::from_secs(seconds));
        assert_eq!(viewer.media_address().is_some(), seconds <= 6, "after {seconds} s");
    }
    viewer.worker.socket.flush();
    let later = begin + Duration::from_secs(30);
    assert!(answer(&mut viewer.worker, later, &viewer.socket, &viewer.peer) > 0);
    assert!(viewer.media_address().is_some());
    viewer.worker.check_session(0, later + Duration::from_secs(30));
    assert!(viewer.worker.sessions[0].is_some());
    viewer.worker.check_session(0, later + Duration::from_secs(31));
    assert!(viewer.worker.sessions[0].is_none(), "the session ends 30 s after the last answer");
}

#[tokio::test]
async fn forged_check_does_not_take_the_address_of_another_viewer() {
    let mut viewer = ConnectedViewer::connect();
    viewer.producer.take_key_frame_request();
    let stream = Arc::clone(viewer.producer.stream());
    let handle = [WorkerHandle {
        mailbox: Arc::clone(&viewer.worker.mailbox),
        liveness: Arc::clone(&viewer.worker.liveness),
        candidates: Vec::new(),
    }];
    let (attacker_slot, attacker) = join(&mut viewer.worker, &handle, &stream);
    let now = Instant::now();
    deliver(&mut viewer.worker, now, &viewer.socket, &attacker.check(true));
    assert_eq!(viewer.worker.by_address[&viewer.socket.local_addr().unwrap()], 0);
    assert!(viewer.requests_key_frame(now, &pli(viewer.video_ssrc)), "RTCP of the viewer still reaches its session");
    // A session that really shares the address, as after a reload, proves it and takes it over.
    answer(&mut viewer.worker, now, &viewer.socket, &attacker);
    assert_eq!(viewer.worker.by_address[&viewer.socket.local_addr().unwrap()], attacker_slot);
}

#[tokio::test]
async fn session_counts_as_a_viewer_only_once_it_is_connected() {
    let hub = Hub::new(hub::Limits::default());
    let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
    let (mut worker, handles) = worker();
    let (slot, _) = join(&mut worker, &handles, producer.stream());
    let counts = |worker: &Worker| {
        let metrics = &worker.context.metrics;
        (producer.stream().viewers().webrtc, metrics.sessions.get(), metrics.connecting_sessions.get())
    };
    assert_eq!(counts(&worker), (0, 0, 1));
    let (srtp, _) = keys(&worker.context.identity);
    worker.connect(Instant::now(), slot, srtp);
    assert_eq!(counts(&worker), (1, 1, 0));
    worker.close(slot, "left", false);
    assert_eq!(counts(&worker), (0, 0, 0));
}

#[tokio::test]
async fn session_without_a_valid_check_ends_after_eight_seconds() {
    let hub = Hub::new(hub::Limits::default());
    let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
    let (mut worker, handles) = worker();
    let (silent, _) = join(&mut worker, &handles, producer.stream());
    let (checked, peer) = join(&mut worker, &handles, producer.stream());
    let begin = Instant::now();
    deliver(&mut worker, begin, &test_peer::bind(), &peer.check(true));
    let is_open = |worker: &Worker| [silent, checked].map(|slot| worker.sessions[slot].is_some());
    worker.on_tick(begin + Duration::from_secs(7));
    assert_eq!(is_open(&worker), [true, true]);
    worker.on_tick(begin + Duration::from_millis(8_100));
    assert_eq!(is_open(&worker), [false, true]);
    worker.on_tick(begin + Duration::from_millis(30_100));
    assert_eq!(is_open(&worker), [false, false]);
    assert_eq!(worker.context.metrics.unconnected_sessions.get(), 2);
}

#[tokio::test]
async fn session_that_was_displaced_before_it_was_created_is_not_opened() {
    let hub = Hub::new(hub::Limits::default());
    let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
    let (mut worker, _) = worker();
    worker.join(NewSession {
        id: SessionId::random(),
        stream: Arc::clone(producer.stream()),
        local: generate_credentials(),
        remote: generate_credentials(),
        fingerprint: Fingerprint::of(b"a certificate"),
        packetizers: Vec::new(),
    });
    assert!(worker.sessions.is_empty());
}
