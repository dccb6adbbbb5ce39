//! Tests of key frame requests from the sealed RTCP datagram of a viewer to the hub's producer.

use std::net::{Ipv4Addr, UdpSocket};

use headwater_api::StreamName;
use headwater_wire::webrtc::{Credentials, Fingerprint};
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::gateway::webrtc::transport::srtp::SrtpSession;
use crate::hub::{Hub, Limits, Producer, ViewerKind};

const PROFILE: ProtectionProfile = ProtectionProfile::AeadAes128Gcm;

/// A worker with one connected viewer. The handshake is replaced by fixed keys.
struct ConnectedViewer {
    producer: Producer,
    worker: Worker,
    pair: AddressPair,
    /// Seals the viewer's RTCP packets.
    rtcp: Context,
    /// SSRC of the video track.
    video_ssrc: u32,
}

impl ConnectedViewer {
    /// Must be called within a Tokio runtime, which the packetizer needs.
    fn connect() -> Self {
        let hub = Hub::new(Limits::default());
        let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
        let stream = Arc::clone(producer.stream());
        let packetizer = StreamPacketizer::spawn(&stream, MediaKind::Video);
        let video_ssrc = packetizer.ssrc;
        let identity = Arc::new(Identity::new().unwrap());
        let (srtp, rtcp) = keys(&identity);
        let mut socket = Socket::bind(0).unwrap();
        let pair = receive_pair(&mut socket);
        let mailbox = Arc::new(Mailbox::new(socket.wake_handle()));
        let context = SharedContext {
            identity,
            metrics: Metrics::default(),
            events: EventBus::default(),
            directory: Arc::new(SessionDirectory::new(1, 1)),
            consent_timeout: Duration::from_secs(30),
        };
        let mut worker = Worker::new(socket, mailbox, Arc::new(Liveness::new()), context);
        worker.join(NewSession {
            id: SessionId::parse(&"0".repeat(32)).unwrap(),
            stream: Arc::clone(&stream),
            credentials: Credentials { ufrag: "abcd".to_owned(), password: "0123456789abcdefghijkl".to_owned() },
            remote_ufrag: "efgh".to_owned(),
            fingerprint: Fingerprint::of(b"a certificate"),
            packetizers: vec![(packetizer, 96)],
            viewer_guard: stream.count_viewer(ViewerKind::Webrtc),
        });
        worker.by_address.insert(pair.remote, 0);
        worker.sessions[0].as_mut().unwrap().connect(srtp);
        worker.start_tracks(0);
        Self { producer, worker, pair, rtcp, video_ssrc }
    }

    /// Sends an RTCP packet and returns whether the publisher receives a key frame request.
    fn requests_key_frame(&mut self, at: Instant, packet: &[u8]) -> bool {
        let sealed = self.rtcp.encrypt_rtcp(packet).unwrap();
        self.worker.on_datagram(at, &self.pair, &sealed);
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

/// Receives a datagram from a new viewer and returns its addresses.
fn receive_pair(socket: &mut Socket) -> AddressPair {
    let viewer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    viewer.send_to(b"here", (Ipv4Addr::LOCALHOST, socket.port().unwrap())).unwrap();
    assert!(socket.wait(Duration::from_secs(10)));
    let batch = socket.receive();
    *batch.iter().next().unwrap().0
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
