//! The worst case of every parser of `headwater-wire`: the time per byte at the largest accepted
//! input is at most twice that at a tenth of it, unless it is that of copying memory. A parser
//! whose cost grows faster than its input lets one client stop a thread that serves thousands.
//!
//! ```text
//! cargo bench -p headwater-tests --bench parsers [-- NAME]
//! ```
//!
//! Prints a table and fails if a parser exceeds the limit. Measures CPU time of this thread, so
//! that other work on the machine matters little. To add a parser, add a [`Case`]: its input must
//! have the most elements that its length allows, and must be accepted.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a command-line tool")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headwater_wire::cmaf::Packager;
use headwater_wire::codec::{annexb, av1, h264, h265};
use headwater_wire::hls::{Reload, Resource};
use headwater_wire::relay::{
    ClientHandshake, ClusterSecret, MAX_RECORD_BYTES, Message, MessageReader, ServerHandshake,
};
use headwater_wire::rtmp::message::kind;
use headwater_wire::rtmp::{self, ChunkReader, Handshake, Ingest, Session, amf0};
use headwater_wire::rtp::H264Packetizer;
use headwater_wire::segment::Segmenter;
use headwater_wire::webrtc::{
    BindingRequest, ClientHello, Credentials, Feedback, MAX_OFFER_BYTES, Offer, count_handshake_fragments,
};
use headwater_wire::{Codec, Frame, MediaTime, Track};
use nix::time::{ClockId, clock_gettime};

/// Of a ClientHello: as many whole records of [`dtls_fragments`] as fit into a datagram.
const HELLO_DATAGRAM_BYTES: usize = 57 * 26;
/// Limit of the time per byte at the largest input, as a multiple of that at a tenth of it.
const MAX_RATIO: f64 = 2.0;
/// Time per byte that any growth may reach: that of copying into memory which is touched for the
/// first time (0.3 to 2 ns measured), where small inputs stay in a cache.
const MEMORY_NS_PER_BYTE: f64 = 3.0;
/// Each measurement repeats a parser for at least this duration.
const MIN_DURATION: Duration = Duration::from_millis(20);
/// The fastest of this number of measurements counts.
const MEASUREMENTS: usize = 5;

/// Largest datagram that a WebRTC worker receives, without IP and UDP headers.
const MAX_DATAGRAM_BYTES: usize = 1_500;
/// Largest request line on the HLS fast path.
const MAX_URL_BYTES: usize = 2 << 10;
/// `AVCDecoderConfigurationRecord` of the High profile, level 3.1, with one SPS and one PPS.
const AVC_CONFIG: [u8; 49] = [
    0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x01, 0x00, 0x06, 0x68,
    0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00, 0x00, 0x00,
];

/// One parser and its worst input.
struct Case {
    name: &'static str,
    /// Length of the largest input.
    max_bytes: usize,
    /// Builds an input of about this length.
    input: fn(usize) -> Vec<u8>,
    /// Parses an input. Panics if it is not accepted.
    parse: fn(&[u8]),
}

const CASES: &[Case] = &[
    Case { name: "sdp attributes", max_bytes: MAX_OFFER_BYTES, input: offer_of_attributes, parse: parse_offer },
    Case { name: "sdp bundle", max_bytes: MAX_OFFER_BYTES, input: offer_of_mids, parse: parse_offer },
    Case { name: "stun", max_bytes: MAX_DATAGRAM_BYTES, input: stun_attributes, parse: parse_stun },
    Case { name: "client hello", max_bytes: 8 * HELLO_DATAGRAM_BYTES, input: hello_fragments, parse: parse_hello },
    Case {
        name: "dtls fragments",
        max_bytes: MAX_DATAGRAM_BYTES,
        input: dtls_fragments,
        parse: |bytes| assert!(count_handshake_fragments(bytes) > 0),
    },
    Case {
        name: "rtcp",
        max_bytes: MAX_DATAGRAM_BYTES,
        input: |len| repeat(&[0x80, 201, 0, 1, 0, 0, 0, 1], len),
        parse: |bytes| drop(Feedback::parse(bytes).unwrap()),
    },
    Case {
        name: "rtmp handshake",
        max_bytes: 3_073,
        input: |len| [&[3][..], &vec![0; len - 1]].concat(),
        parse: parse_handshake,
    },
    Case { name: "rtmp amf0 text", max_bytes: 64 << 10, input: amf0_text, parse: parse_amf0 },
    Case { name: "rtmp amf0 values", max_bytes: 5 << 10, input: amf0_values, parse: parse_amf0 },
    Case {
        name: "rtmp commands",
        max_bytes: 60 << 10,
        input: |len| chunks(1, 20, &connect(len)),
        parse: parse_session,
    },
    Case {
        name: "rtmp chunks",
        max_bytes: rtmp::chunk::MAX_MESSAGE_BYTES,
        input: |len| chunks(1, kind::VIDEO, &vec![0; len / 2]),
        parse: parse_chunks,
    },
    Case {
        name: "rtmp video tag",
        max_bytes: rtmp::chunk::MAX_MESSAGE_BYTES / 2,
        input: |len| [&[0x17, 1, 0, 0, 0][..], &repeat(&[0, 0, 0, 1, 0x65], len)].concat(),
        parse: parse_video_tag,
    },
    Case { name: "h264 config", max_bytes: 64 << 10, input: avc_config, parse: parse_avc_config },
    Case {
        name: "h265 config",
        max_bytes: 64 << 10,
        input: hevc_config,
        parse: |bytes| drop(h265::track(Bytes::copy_from_slice(bytes))),
    },
    Case {
        name: "av1 config",
        max_bytes: 64 << 10,
        input: |len| [&[0x81, 0, 0, 0][..], &repeat(&[0x12, 0], len)].concat(),
        parse: |bytes| drop(av1::track(Bytes::copy_from_slice(bytes))),
    },
    Case {
        name: "annex b",
        max_bytes: 4 << 20,
        input: |len| repeat(&[0, 0, 1, 0x65], len),
        parse: |bytes| drop(annexb::to_length_prefixed(&Bytes::copy_from_slice(bytes))),
    },
    Case {
        name: "rtp packets",
        max_bytes: 4 << 20,
        input: |len| repeat(&[0, 0, 0, 1, 0x41], len),
        parse: |bytes| assert!(H264Packetizer::default().packetize(&frame(bytes)).is_some()),
    },
    Case { name: "cmaf part", max_bytes: 4 << 20, input: |len| repeat(&[0, 0, 0, 1, 0x41], len), parse: package },
    Case {
        name: "hls query",
        max_bytes: MAX_URL_BYTES,
        input: |len| repeat(b"_HLS_msn=1&", len - 11).into_iter().chain(*b"_HLS_part=1").collect(),
        parse: |bytes| assert!(Reload::parse(std::str::from_utf8(bytes).unwrap()).unwrap().is_some()),
    },
    Case {
        name: "hls resource",
        max_bytes: MAX_URL_BYTES,
        input: |len| vec![b'0'; len],
        parse: |bytes| {
            let _ = Resource::parse(std::str::from_utf8(bytes).unwrap());
        },
    },
    Case { name: "relay messages", max_bytes: MAX_RECORD_BYTES / 4, input: relay_messages, parse: parse_messages },
    Case { name: "relay record", max_bytes: MAX_RECORD_BYTES - 16, input: |len| vec![0; len], parse: open_record },
];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!("{:<18} {:>12} {:>12} {:>12} {:>6}", "parser", "bytes", "ns per byte", "at a tenth", "ratio");
    let mut failed = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&filter)) {
        let (largest, tenth) = ((case.input)(case.max_bytes), (case.input)(case.max_bytes / 10));
        let (at_largest, at_tenth) = (ns_per_byte(case.parse, &largest), ns_per_byte(case.parse, &tenth));
        let ratio = at_largest / at_tenth;
        println!("{:<18} {:>12} {at_largest:>12.2} {at_tenth:>12.2} {ratio:>6.2}", case.name, largest.len());
        if ratio > MAX_RATIO && at_largest > MEMORY_NS_PER_BYTE {
            failed.push(case.name);
        }
    }
    if !failed.is_empty() {
        println!("the time per byte grows by more than {MAX_RATIO}: {}", failed.join(", "));
        std::process::exit(1);
    }
}

/// Returns the CPU time per byte of the fastest measurement.
fn ns_per_byte(parse: fn(&[u8]), input: &[u8]) -> f64 {
    let measure = || {
        let (begin, mut runs) = (cpu_time(), 0);
        loop {
            parse(black_box(input));
            runs += 1;
            let elapsed = cpu_time() - begin;
            if elapsed >= MIN_DURATION {
                return elapsed.as_nanos() as f64 / f64::from(runs) / input.len() as f64;
            }
        }
    };
    (0..MEASUREMENTS).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock").into()
}

/// Repeats a pattern as often as it fits into `len` bytes.
fn repeat(pattern: &[u8], len: usize) -> Vec<u8> {
    pattern.repeat(len / pattern.len())
}

/// The head of an offer, with this BUNDLE group.
fn offer_head(mids: &str) -> String {
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdefghijkl\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
    )
}

/// A section with all 128 payload types.
fn offer_section(mid: usize) -> String {
    let formats: String = (0..128).map(|n| format!(" {n}")).collect();
    format!("m=video 9 UDP/TLS/RTP/SAVPF{formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\n")
}

/// Sections with as many attributes as are allowed, all of which concern payload types.
fn offer_of_attributes(len: usize) -> Vec<u8> {
    let mut sdp = offer_head("0 1 2 3 4 5 6 7 8 9");
    for mid in 0..10 {
        if sdp.len() + 2_000 > len {
            break;
        }
        sdp.push_str(&offer_section(mid));
        let mut payload_types = (0..128).cycle();
        for _ in 0..1_000 {
            if sdp.len() + 40 > len {
                break;
            }
            sdp.push_str(&format!("a=rtcp-fb:{} nack\r\n", payload_types.next().unwrap()));
        }
    }
    sdp.into_bytes()
}

/// A long BUNDLE group, and as many sections as are allowed.
fn offer_of_mids(len: usize) -> Vec<u8> {
    let sections: String = (0..len / 2_100).take(32).map(offer_section).collect();
    let mut mids: String = (0..32).map(|mid| format!("{mid} ")).collect();
    let space = len.saturating_sub(sections.len() + offer_head(&mids).len());
    mids.push_str(&"x ".repeat(space / 2));
    (offer_head(&mids) + &sections).into_bytes()
}

fn parse_offer(bytes: &[u8]) {
    let offer = Offer::parse(std::str::from_utf8(bytes).unwrap()).unwrap();
    for section in &offer.sections {
        black_box((section.h264(100), section.opus()));
    }
}

/// A binding request of empty attributes.
fn stun_attributes(len: usize) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    out.resize(20, 7);
    out.extend(repeat(&[0x80, 0x22, 0, 0], len - 64));
    out.extend([0, 6, 0, 9]);
    out.extend(*b"evtj:h6vY\0\0\0");
    out.extend([0, 8, 0, 20]);
    out.extend([0; 20]);
    let length = (out.len() - 20) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn parse_stun(bytes: &[u8]) {
    let mut request = BindingRequest::parse(bytes).unwrap();
    let local = Credentials { ufrag: "evtj".to_owned(), password: "VOkJxbRl1RmTxUk/WvJxBt".to_owned() };
    let provider = rtc_crypto::default_provider().unwrap();
    black_box(request.verify(&local, "h6vY", provider.crypto()).is_ok());
}

/// DTLS records of one byte of a ClientHello each.
fn dtls_fragments(len: usize) -> Vec<u8> {
    let record = |n: usize| {
        let offset = (n as u32).to_be_bytes();
        let mut out = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 1, 0, 0x1f, 0xff, 0, 0];
        out.extend(&offset[1..]);
        out.extend([0, 0, 1, 7]);
        out
    };
    (0..len / 26).flat_map(record).collect()
}

fn hello_fragments(len: usize) -> Vec<u8> {
    dtls_fragments(len)
}

fn parse_hello(bytes: &[u8]) {
    let mut hello = ClientHello::default();
    for datagram in bytes.chunks(HELLO_DATAGRAM_BYTES) {
        assert!(!hello.push(datagram).unwrap());
    }
    black_box(hello.into_datagrams());
}

fn parse_handshake(bytes: &[u8]) {
    let (mut handshake, mut reply) = (Handshake::default(), Vec::new());
    for byte in bytes {
        handshake.on_bytes(std::slice::from_ref(byte), &mut reply).unwrap();
    }
}

/// A long string that is not UTF-8.
fn amf0_text(len: usize) -> Vec<u8> {
    let text = vec![0xff; len - 5];
    [&[12][..], &(text.len() as u32).to_be_bytes(), &text].concat()
}

/// Nested arrays, and as many values as are allowed.
fn amf0_values(len: usize) -> Vec<u8> {
    let values = (len / 5).min(1_000);
    let mut out = repeat(&[10, 0, 0, 0, 1], 5 * 15);
    out.extend([10]);
    out.extend((values as u32).to_be_bytes());
    out.extend(vec![5; values]);
    out.extend(vec![5; 0]);
    out
}

fn parse_amf0(bytes: &[u8]) {
    black_box(amf0::decode(bytes).unwrap());
}

/// The body of a `connect` command of about this length.
fn connect(len: usize) -> Vec<u8> {
    let properties =
        [("app".to_owned(), amf0::Value::from("live")), ("x".to_owned(), "x".repeat(len / 2).as_str().into())];
    amf0::encode(&["connect".into(), 1.0.into(), amf0::Value::Object(properties.to_vec())])
}

/// A message in chunks of `chunk_bytes`, after the message that announces this size.
fn chunks(chunk_bytes: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
    out.extend(chunk_bytes.to_be_bytes());
    out.extend([3, 0, 0, 0]);
    out.extend(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, 1, 0, 0, 0]);
    for (n, piece) in body.chunks(chunk_bytes as usize).enumerate() {
        if n > 0 {
            out.push(0xc3);
        }
        out.extend(piece);
    }
    out
}

fn parse_chunks(bytes: &[u8]) {
    let (mut reader, mut messages) = (ChunkReader::default(), 0);
    reader.expect_media();
    // As a connection reads them.
    for mut input in bytes.chunks(16 << 10) {
        while reader.next(&mut input).unwrap().is_some() {
            messages += 1;
        }
    }
    assert!(messages > 0);
}

fn parse_session(bytes: &[u8]) {
    let (mut reader, mut session, mut input, mut events) = (ChunkReader::default(), Session::default(), bytes, 0);
    while let Some(message) = reader.next(&mut input).unwrap() {
        events += usize::from(session.on_message(message).unwrap().is_some());
    }
    assert_eq!(events, 1);
}

fn parse_video_tag(bytes: &[u8]) {
    let mut ingest = Ingest::default();
    let message = |payload| rtmp::Message { kind: kind::VIDEO, stream: 1, timestamp_ms: 0, payload };
    let header = Bytes::from([&[0x17, 0, 0, 0, 0][..], &AVC_CONFIG].concat());
    ingest.on_message(message(header)).unwrap();
    assert!(ingest.on_message(message(Bytes::copy_from_slice(bytes))).unwrap().is_some());
}

/// A decoder configuration with a long SPS and as many parameter sets as are allowed.
fn avc_config(len: usize) -> Vec<u8> {
    let sets = (len - 300) / 288;
    let mut out = AVC_CONFIG[..5].to_vec();
    out.push(0xe0 | sets.clamp(1, 31) as u8);
    for _ in 0..sets.clamp(1, 31) {
        out.extend([1, 30]);
        out.extend(&AVC_CONFIG[8..34]);
        out.extend([0xff; 260]);
    }
    let sets = sets.saturating_sub(31).min(255);
    out.push(sets as u8);
    out.extend([&[1, 30, 0x68][..], &[0xff; 285]].concat().repeat(sets));
    out
}

/// A decoder configuration with one array of parameter sets of one byte.
fn hevc_config(len: usize) -> Vec<u8> {
    let sets = ((len - 26) / 3) as u16;
    let head = [&[1; 22][..], &[1, 0x20], &sets.to_be_bytes()].concat();
    [head, [0, 1, 0x40].repeat(usize::from(sets))].concat()
}

fn parse_avc_config(bytes: &[u8]) {
    let config = h264::DecoderConfig::parse(&Bytes::copy_from_slice(bytes)).unwrap();
    black_box((config.encode(), config.video(), config.codec_string()));
}

fn frame(payload: &[u8]) -> Frame {
    let config = Bytes::from_static(&AVC_CONFIG);
    let track = Arc::new(Track { codec: Codec::H264, config, codec_string: None, video: None, audio: None });
    let time = MediaTime::from_ms(40);
    Frame { track, dts: time, pts: time, key: true, payload: Bytes::copy_from_slice(payload) }
}

fn package(bytes: &[u8]) {
    let (frame, mut out) = (frame(bytes), Vec::new());
    let mut segmenter = Segmenter::new(MediaTime::from_ms(2_000), MediaTime::from_ms(200));
    let segment = segmenter.on_frame(&frame);
    let mut packager = Packager::new(segmenter.targets());
    packager.push(&frame, segment, &mut out);
    packager.finish(&mut out);
    black_box(out);
}

/// Messages without a body.
fn relay_messages(len: usize) -> Vec<u8> {
    let mut message = BytesMut::new();
    Message::KeyFrame.write(&mut message);
    repeat(&message, len)
}

fn parse_messages(bytes: &[u8]) {
    let mut messages = MessageReader::new(Bytes::copy_from_slice(bytes));
    while messages.next_message().unwrap().is_some() {}
}

/// Seals a record and opens it as its bytes arrive.
fn open_record(bytes: &[u8]) {
    let secret = ClusterSecret::new(b"a secret of the cluster").unwrap();
    let (client, hello) = ClientHandshake::new(&secret, [1; 32]);
    let (server, server_hello) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
    let (proof, mut client) = client.on_server_hello(&server_hello).unwrap();
    let mut opener = server.on_proof(&proof).unwrap().opener;
    let mut record = BytesMut::new();
    client.sealer.seal_record(&mut record, |out| out.extend_from_slice(bytes));
    let mut opened = None;
    for piece in record.chunks(16 << 10) {
        opener.buffer().extend_from_slice(piece);
        opened = opener.next_record().unwrap();
    }
    assert!(opened.is_some());
}
