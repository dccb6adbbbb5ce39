//! A client cannot harm the DTLS endpoint: not with any prefix or flipped bit of the datagrams of a
//! real handshake, and not with records without end (RFC 6347).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use headwater_wire::webrtc::Fingerprint;
use rtc_dtls::config::{ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::Endpoint;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;

use super::dtls::{Dtls, DtlsEvent, Identity};
use super::dtls_srtp::DtlsSrtp;
use super::udp::AddressPair;

/// Longest response to one datagram: the flight with the certificate, which has less than 2 KB.
const MAX_RESPONSE_BYTES: usize = 4 << 10;

/// Maximum growth of the resident memory while a client sends [`FLOOD_BYTES`].
const MAX_MEMORY_GROWTH_BYTES: usize = 16 << 20;

const FLOOD_BYTES: usize = 64 << 20;

/// The stack of a new thread in Rust, and therefore of a WebRTC worker.
const STACK_BYTES: usize = 2 << 20;

/// A server and the configuration of its clients.
struct Peers {
    identity: Identity,
    client_config: Arc<HandshakeConfig>,
    client_fingerprint: Fingerprint,
}

impl Peers {
    fn new() -> Self {
        let identity = Identity::new().unwrap();
        let certificate =
            Certificate::generate_self_signed(vec!["client".to_owned()], identity.provider.crypto()).unwrap();
        let client_fingerprint = Fingerprint::of(&certificate.certificate[0]);
        let client_config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&identity.provider))
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_insecure_skip_verify(true)
            .build(true, None)
            .unwrap();
        Self { identity, client_config: Arc::new(client_config), client_fingerprint }
    }

    fn handshake(&self) -> Handshake<'_> {
        let (address, now) = (SocketAddr::from(([192, 0, 2, 2], 2)), Instant::now());
        let mut client = Endpoint::new(address, TransportProtocol::UDP, None);
        client.connect(now, address, Arc::clone(&self.client_config), None).unwrap();
        Handshake { identity: &self.identity, now, address, client, server: Dtls::new(self.client_fingerprint) }
    }
}

/// A handshake whose datagrams are delivered one by one.
struct Handshake<'a> {
    identity: &'a Identity,
    now: Instant,
    address: SocketAddr,
    client: Endpoint,
    server: Dtls,
}

impl Handshake<'_> {
    fn next_datagram(&mut self) -> Option<BytesMut> {
        self.client.poll_transmit().map(|transmit| transmit.message)
    }

    /// Delivers a datagram to the server and the responses to the client. Returns true if the
    /// server has completed the handshake.
    fn deliver(&mut self, datagram: &[u8]) -> bool {
        let event = self.server.on_datagram(self.now, datagram, self.identity).unwrap();
        while let Some(response) = self.server.poll_transmit() {
            self.client.read(self.now, self.address, None, response).unwrap();
        }
        matches!(event, DtlsEvent::Connected(_))
    }

    /// Delivers the first `index` datagrams of the client and returns the next one.
    fn advance(&mut self, index: usize) -> BytesMut {
        for _ in 0..index {
            let datagram = self.next_datagram().unwrap();
            self.deliver(&datagram);
        }
        self.next_datagram().unwrap()
    }

    /// Delivers all datagrams. Returns their number, or `None` if the handshake stays incomplete.
    fn complete(mut self) -> Option<usize> {
        for count in 1.. {
            let datagram = self.next_datagram()?;
            if self.deliver(&datagram) {
                return Some(count);
            }
        }
        None
    }

    /// Delivers a datagram that the server may reject, and lets its timer expire.
    fn attack(&mut self, datagram: &[u8]) {
        // The session continues after an error.
        let _ = self.server.on_datagram(self.now, datagram, self.identity);
        assert!(self.response_bytes() <= MAX_RESPONSE_BYTES);
        self.now += Duration::from_secs(5);
        let _ = self.server.on_timeout(self.now);
        assert!(self.response_bytes() <= MAX_RESPONSE_BYTES);
    }

    fn response_bytes(&mut self) -> usize {
        std::iter::from_fn(|| self.server.poll_transmit()).map(|response| response.len()).sum()
    }
}

/// Encodes a record of the epoch 0 or 1 (RFC 6347 §4.1).
fn record(kind: u8, epoch: u8, sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0xfe, 0xfd, 0, epoch];
    out.extend_from_slice(&sequence.to_be_bytes()[2..]);
    out.extend_from_slice(&(content.len() as u16).to_be_bytes());
    out.extend_from_slice(content);
    out
}

/// Encodes the header of a fragment of one byte at `offset` of the second handshake message, which
/// claims to be `length` bytes long (RFC 6347 §4.2.2).
fn fragment(length: u32, offset: u32) -> Vec<u8> {
    let u24 = |n: u32| n.to_be_bytes()[1..].to_vec();
    [vec![1], u24(length), vec![0, 1], u24(offset), u24(1)].concat()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_handshake_panics() {
    let peers = Peers::new();
    let datagrams = peers.handshake().complete().unwrap();
    for index in 0..datagrams {
        let mut at = 0;
        // Signatures, and so datagrams, differ in length from handshake to handshake.
        loop {
            let mut handshake = peers.handshake();
            let datagram = handshake.advance(index);
            if at >= datagram.len() {
                break;
            }
            handshake.attack(&datagram[..at]);
            for bit in 0..8 {
                let mut flipped = datagram.clone();
                flipped[at] ^= 1 << bit;
                handshake.attack(&flipped);
            }
            at += 1;
        }
    }
    assert_eq!(peers.handshake().complete(), Some(datagrams));
}

#[test]
fn rejected_datagrams_do_not_prevent_the_handshake() {
    let peers = Peers::new();
    let mut handshake = peers.handshake();
    let hello = handshake.advance(0);
    for end in (0..hello.len()).step_by(10) {
        handshake.attack(&hello[..end]);
    }
    handshake.attack(&record(0xff, 0, 1, b"not a content type"));
    assert!(!handshake.deliver(&hello));
    assert!(handshake.complete().is_some());
}

#[test]
fn flood_of_records_does_not_fill_the_memory() {
    let peers = Peers::new();
    let mut handshake = peers.handshake();
    let hello = handshake.advance(0);
    handshake.deliver(&hello);
    let before = resident_bytes();
    for sequence in 0..FLOOD_BYTES / 1_200 {
        // Records of the next epoch have to wait for the keys.
        let datagram = record(23, 1, sequence as u64, &[7; 1_200]);
        let _ = handshake.server.on_datagram(handshake.now, &datagram, handshake.identity);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MAX_MEMORY_GROWTH_BYTES, "the memory grew by {grown} bytes");
}

#[test]
fn message_in_many_fragments_does_not_exhaust_the_stack() {
    let attack = || {
        let peers = Peers::new();
        // As many as the server accepts from one client, and far more.
        for fragments in [200, 40_000] {
            let mut handshake = peers.handshake();
            let hello = handshake.advance(0);
            handshake.deliver(&hello);
            // The first fragment comes last and completes the chain.
            for (first, sequence) in (0..fragments).step_by(100).rev().zip(100..) {
                let content: Vec<u8> = (first..first + 100).rev().flat_map(|offset| fragment(0, offset)).collect();
                let datagram = record(22, 0, sequence, &content);
                let _ = handshake.server.on_datagram(handshake.now, &datagram, handshake.identity);
            }
        }
        assert!(peers.handshake().complete().is_some());
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(attack).unwrap().join().unwrap();
}

/// Joining fragments takes time that grows with the third power of their number.
#[test]
fn fragments_beyond_those_of_a_handshake_are_refused() {
    let peers = Peers::new();
    let mut handshake = peers.handshake();
    let hello = handshake.advance(0);
    handshake.deliver(&hello);
    let mut deliver = |n: u32| {
        let datagram = record(22, 0, 100 + u64::from(n), &[fragment(20_000, n), vec![7]].concat());
        handshake.server.on_datagram(handshake.now, &datagram, handshake.identity).map(drop)
    };
    // Without the first fragment, the message stays incomplete.
    let accepted = (1..1_000).take_while(|&n| deliver(n).is_ok()).count();
    assert!((200..=256).contains(&accepted), "{accepted} fragments were accepted");
}

/// Completes a handshake in which the datagram `moved_at` of the client comes from another address.
/// Returns the address that the handshake proves.
fn handshake_address(moved_at: Option<usize>) -> Option<SocketAddr> {
    let peers = Peers::new();
    let Handshake { now, address, mut client, .. } = peers.handshake();
    let mut server = DtlsSrtp::new(peers.client_fingerprint);
    for n in 0.. {
        let datagram = client.poll_transmit().unwrap().message;
        let port = if moved_at == Some(n) { 2 } else { 1 };
        let from = AddressPair::to(SocketAddr::from(([192, 0, 2, 3], port)));
        let mut responses = Vec::new();
        let send = |to: &AddressPair, bytes: &[u8]| {
            assert_eq!(to.remote, from.remote, "a response goes to where the datagram came from");
            responses.push(BytesMut::from(bytes));
        };
        let event = server.on_datagram(now, &datagram, &from, &peers.identity, send).unwrap();
        for response in responses {
            client.read(now, address, None, response).unwrap();
        }
        if matches!(event, DtlsEvent::Connected(_)) {
            break;
        }
    }
    server.handshake_address()
}

#[test]
fn completed_handshake_proves_an_address_only_if_all_flights_went_there() {
    assert_eq!(handshake_address(None), Some(SocketAddr::from(([192, 0, 2, 3], 1))));
    for moved_at in 0..3 {
        assert_eq!(handshake_address(Some(moved_at)), None, "datagram {moved_at} with a forged source");
    }
}

/// RFC 8827 §5: the fingerprint in the offer authenticates the certificate.
#[test]
fn client_with_another_certificate_than_in_its_offer_is_refused_without_a_response() {
    let peers = Peers::new();
    let Handshake { now, address, mut client, .. } = peers.handshake();
    let mut server = DtlsSrtp::new(Fingerprint::of(b"another certificate"));
    let from = AddressPair::to(SocketAddr::from(([192, 0, 2, 3], 1)));
    loop {
        let datagram = client.poll_transmit().expect("the handshake has neither succeeded nor failed").message;
        let mut responses = Vec::new();
        let send = |_: &AddressPair, bytes: &[u8]| responses.push(BytesMut::from(bytes));
        let event = server.on_datagram(now, &datagram, &from, &peers.identity, send).unwrap();
        match event {
            DtlsEvent::WrongCertificate => {
                assert!(responses.is_empty(), "the client receives the last flight");
                break;
            }
            DtlsEvent::Connected(_) => panic!("the certificate was accepted"),
            DtlsEvent::NoChange | DtlsEvent::Closed => {}
        }
        for response in responses {
            client.read(now, address, None, response).unwrap();
        }
    }
    assert!(!server.is_connected());
}
