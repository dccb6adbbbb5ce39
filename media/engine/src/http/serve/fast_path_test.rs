//! Tests of the fast path from the client's side, over a pipe instead of a socket.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::http::serve::client::Encryption;
use crate::http::test_node::TestNode;
use crate::runtime::trusted_proxies::TrustedProxies;

const PLAYLIST: &[u8] = b"GET /live/streams/a.m3u8?_HLS_msn=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\
    X-Forwarded-For: 198.51.100.7, 10.0.0.1\r\nUser-Agent: a\r\n\r\n";
const MISSING: &str = "GET /live/streams/missing.m3u8 HTTP/1.1\r\nhost: x\r\n\r\n";
const LAST: &str = "GET /live/streams/missing.m3u8 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
/// Larger than any response in these tests.
const ROOM: usize = 64 << 10;

type Served = JoinHandle<io::Result<Option<Vec<u8>>>>;

/// Returns the peer's end of a pipe and the task that serves the other end.
fn serve_here(node: &TestNode, drain: &CancellationToken) -> (DuplexStream, Served) {
    let (peer, mut stream) = duplex(ROOM);
    let (state, drain) = (node.state.clone(), drain.clone());
    let clients = ClientResolver::new((Ipv4Addr::LOCALHOST, 1).into(), Encryption::None, &TrustedProxies::default());
    let serving = async move { super::serve(&mut stream, &RequestPhase::default(), &state, &clients, &drain).await };
    (peer, tokio::spawn(serving))
}

/// Reads until end of file.
async fn rest(mut peer: DuplexStream) -> String {
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn only_simple_get_requests_are_parsed() {
    let path = HlsPath::FlatPlaylist { app: "live", file: "a.m3u8" };
    let forwarded_for = Some(b"198.51.100.7, 10.0.0.1".as_slice());
    let expected = Request {
        path,
        query: Some("_HLS_msn=1"),
        origin: None,
        forwarded_for,
        forwarded_proto: None,
        is_last: false,
        len: PLAYLIST.len(),
    };
    assert_eq!(Request::parse(PLAYLIST), Some(expected));
    let followed = [PLAYLIST, b"GET /"].concat();
    assert_eq!(Request::parse(&followed).unwrap().len, PLAYLIST.len());

    let parse = |text: &str| Request::parse(text.as_bytes()).map(|request| request.is_last);
    let with = |line: &str| parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n"));
    for (line, is_last) in
        [("range: bytes=0-", false), ("connection: Keep-Alive", false), ("Connection:  CLOSE ", true)]
    {
        assert_eq!(with(line), Some(is_last), "{line}");
    }
    for line in [
        "connection: upgrade",
        "connection: close, x",
        "Content-Length: 0",
        "transfer-encoding: chunked",
        "Expect: 100-continue",
        "upgrade: h2c",
        "Authorization: Bearer x",
        "X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2",
        "X-Forwarded-Proto: https\r\nx-forwarded-proto: http",
        "Host: x",
        "a: b\nc: d",
        "no colon",
        "content-length : 5",
    ] {
        assert_eq!(with(line), None, "{line}");
    }
    for start in [
        "HEAD /live/streams/a.m3u8 HTTP/1.1",
        "GET /live/streams/a.m3u8 HTTP/1.0",
        "GET http://x/live/streams/a.m3u8 HTTP/1.1",
        "GET /live/streams/%61.m3u8 HTTP/1.1",
        "GET /live/streams/a.m3u8#x HTTP/1.1",
        "GET /live/streams/\u{e4}.m3u8 HTTP/1.1",
        "GET /live/streams/a.m3u8?<script> HTTP/1.1",
        "GET /live/whep/a HTTP/1.1",
        "GET / HTTP/1.1",
    ] {
        assert_eq!(parse(&format!("{start}\r\nhost: x\r\n\r\n")), None, "{start}");
    }
    let many = "a: b\r\n".repeat(MAX_HEADERS);
    assert_eq!(parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1\r\nhost: x\r\n{many}\r\n")), None);
    for host in ["", "host:\r\n", "host: a b\r\n", "host: a,b\r\n", "host: user@a\r\n"] {
        assert_eq!(parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1\r\n{host}\r\n")), None, "{host:?}");
    }
    for line_ends in [["\n", "\r\n", "\r\n"], ["\r\n", "\n", "\r\n"], ["\r\n", "\r\n", "\n"]] {
        let [first, second, last] = line_ends;
        assert_eq!(parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1{first}host: x{second}{last}")), None);
    }
}

#[test]
fn prefix_of_a_request_is_incomplete_and_no_flipped_bit_panics() {
    for end in 0..PLAYLIST.len() {
        assert_eq!(Request::parse(&PLAYLIST[..end]), None, "{end}");
    }
    for at in 0..PLAYLIST.len() {
        for bit in 0..8 {
            let mut flipped = PLAYLIST.to_vec();
            flipped[at] ^= 1 << bit;
            let _ = Request::parse(&flipped);
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_until_the_first_unsupported_one() {
    let node = TestNode::new();
    let (mut peer, task) = serve_here(&node, &CancellationToken::new());
    let other = "HEAD /live/streams/missing.m3u8 HTTP/1.1\r\n";
    let no_app = "GET /none/streams/a.m3u8 HTTP/1.1\r\nHost: [::1]:5080\r\n\r\n";
    peer.write_all(format!("{MISSING}{no_app}{other}").as_bytes()).await.unwrap();
    assert_eq!(task.await.unwrap().unwrap().as_deref(), Some(other.as_bytes()));
    let text = rest(peer).await;
    let answers: Vec<_> = text.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.len(), 2, "{text}");
    for (answer, code) in answers.into_iter().zip(["stream_not_found", "app_not_found"]) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("404 Not Found\r\n") && body.contains(code), "{answer}");
        let lines = |name: &str| head.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
        assert_eq!(lines("content-length: "), [body.len().to_string()]);
        assert_eq!(lines("access-control-allow-origin: "), ["*"]);
        assert_eq!(lines("access-control-expose-headers: "), [EXPOSED_HEADERS]);
        assert_eq!(lines("x-content-type-options: "), ["nosniff"]);
        let [date] = lines("date: ")[..] else { panic!("{head}") };
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
        assert!(age < Duration::from_secs(60), "{date}");
    }
}

#[tokio::test(start_paused = true)]
async fn pipelining_client_is_not_read_while_a_request_is_answered() {
    let node = TestNode::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let (mut peer, _served) = serve_here(&node, &CancellationToken::new());
    let mut taken = 0;
    // Every request blocks; the paused clock advances once all tasks are idle.
    let asking = async {
        loop {
            peer.write_all(PLAYLIST).await.unwrap();
            taken += PLAYLIST.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), asking).await.is_err());
    assert!(taken <= ROOM + 2 * MAX_HEAD_BYTES, "{taken} bytes are buffered");
}

#[tokio::test]
async fn half_closed_connection_still_receives_its_responses() {
    let node = TestNode::new();
    let (mut peer, task) = serve_here(&node, &CancellationToken::new());
    peer.write_all(MISSING.repeat(3).as_bytes()).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(rest(peer).await.matches("HTTP/1.1 404").count(), 3);
    assert_eq!(task.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn head_received_in_two_pieces_is_unsupported() {
    let node = TestNode::new();
    let (mut peer, task) = serve_here(&node, &CancellationToken::new());
    peer.write_all(b"GET /live/str").await.unwrap();
    assert_eq!(task.await.unwrap().unwrap().as_deref(), Some(b"GET /live/str".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn connection_closed_during_a_blocking_reload_ends_at_once() {
    let node = TestNode::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let (mut peer, task) = serve_here(&node, &CancellationToken::new());
    peer.write_all(PLAYLIST).await.unwrap();
    // A pipelined request does not interrupt the first one.
    peer.write_all(LAST.as_bytes()).await.unwrap();
    let (mut second_peer, second_task) = serve_here(&node, &CancellationToken::new());
    second_peer.write_all(PLAYLIST).await.unwrap();
    let start = tokio::time::Instant::now();
    drop(second_peer);
    assert_eq!(second_task.await.unwrap().unwrap(), None);
    assert!(start.elapsed().is_zero(), "{:?}", start.elapsed());
    // No segment will ever be ready, so the first request times out; then the second is answered.
    let text = rest(peer).await;
    assert!(start.elapsed() >= Duration::from_secs(15), "{:?}", start.elapsed());
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["503", "404"]);
    assert_eq!(task.await.unwrap().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn drain_closes_idle_connections_at_once_and_busy_ones_after_the_response() {
    let node = TestNode::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let drain = CancellationToken::new();
    let (idle, idle_task) = serve_here(&node, &drain);
    let (mut waiting, task) = serve_here(&node, &drain);
    waiting.write_all(PLAYLIST).await.unwrap();
    // Let all tasks become idle.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = tokio::time::Instant::now();
    drain.cancel();
    assert_eq!(idle_task.await.unwrap().unwrap(), None);
    assert_eq!(rest(idle).await, "");
    assert!(start.elapsed().is_zero());
    let text = rest(waiting).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nconnection: close\r\n\r\n"), "{text}");
    assert_eq!(task.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn connection_close_header_ends_the_connection_after_the_response() {
    let node = TestNode::new();
    let (mut peer, task) = serve_here(&node, &CancellationToken::new());
    peer.write_all(format!("{LAST}{MISSING}").as_bytes()).await.unwrap();
    let text = rest(peer).await;
    assert_eq!((text.matches("HTTP/1.1").count(), text.matches("connection: close").count()), (1, 1), "{text}");
    assert_eq!(task.await.unwrap().unwrap(), None);
}
