//! Connections of plain requests as their peers see them, over a pipe instead of a socket.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::http::test_node::Node;

const PLAYLIST: &[u8] = b"GET /live/streams/a.m3u8?_HLS_msn=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\
    X-Forwarded-For: 198.51.100.7, 10.0.0.1\r\nUser-Agent: a\r\n\r\n";
const MISSING: &str = "GET /live/streams/missing.m3u8 HTTP/1.1\r\nhost: x\r\n\r\n";
const LAST: &str = "GET /live/streams/missing.m3u8 HTTP/1.1\r\nconnection: close\r\n\r\n";
/// More than any of the answers here.
const ROOM: usize = 64 << 10;

type Served = JoinHandle<io::Result<Option<Vec<u8>>>>;

/// The peer's end, and what becomes of the other one.
fn serve_here(node: &Node, drain: &CancellationToken) -> (DuplexStream, Served) {
    let (peer, mut stream) = duplex(ROOM);
    let (state, drain) = (node.state.clone(), drain.clone());
    let serving = async move {
        super::serve(&mut stream, &Phase::default(), &state, (Ipv4Addr::LOCALHOST, 1).into(), &drain).await
    };
    (peer, tokio::spawn(serving))
}

/// All that comes until the other end is gone.
async fn rest(mut peer: DuplexStream) -> String {
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn a_request_is_plain_if_it_says_what_is_wanted_and_no_more() {
    let wanted = Wanted::Beside { app: "live", file: "a.m3u8" };
    let forwarded = Some(b"198.51.100.7, 10.0.0.1".as_slice());
    let expected = Request { wanted, query: Some("_HLS_msn=1"), forwarded, is_last: false, len: PLAYLIST.len() };
    assert_eq!(Request::parse(PLAYLIST), Some(expected));
    let followed = [PLAYLIST, b"GET /"].concat();
    assert_eq!(Request::parse(&followed).unwrap().len, PLAYLIST.len());

    let parse = |text: &str| Request::parse(text.as_bytes()).map(|request| request.is_last);
    let with = |line: &str| parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1\r\n{line}\r\n\r\n"));
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
    let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
    assert_eq!(parse(&format!("GET /live/streams/a.m3u8 HTTP/1.1\r\n{many}\r\n")), None);
}

#[test]
fn no_prefix_is_taken_for_the_whole_and_no_flipped_byte_panics() {
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
async fn requests_are_answered_in_order_and_the_first_that_is_not_plain_is_left_whole() {
    let node = Node::new();
    let (mut peer, served) = serve_here(&node, &CancellationToken::new());
    let other = "HEAD /live/streams/missing.m3u8 HTTP/1.1\r\n";
    let no_app = "GET /none/streams/a.m3u8 HTTP/1.1\r\n\r\n";
    peer.write_all(format!("{MISSING}{no_app}{other}").as_bytes()).await.unwrap();
    assert_eq!(served.await.unwrap().unwrap().as_deref(), Some(other.as_bytes()));
    let text = rest(peer).await;
    let answers: Vec<_> = text.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.len(), 2, "{text}");
    for (answer, code) in answers.into_iter().zip(["stream_not_found", "app_not_found"]) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("404 Not Found\r\n") && body.contains(code), "{answer}");
        let lines = |name: &str| head.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
        assert_eq!(lines("content-length: "), [body.len().to_string()]);
        assert_eq!(lines("access-control-allow-origin: "), ["*"]);
        let [date] = lines("date: ")[..] else { panic!("{head}") };
        let age = SystemTime::now().duration_since(httpdate::parse_http_date(date).unwrap()).unwrap();
        assert!(age < Duration::from_secs(60), "{date}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_without_end_is_not_listened_to_meanwhile() {
    let node = Node::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let (mut peer, _served) = serve_here(&node, &CancellationToken::new());
    let mut taken = 0;
    // Each of these is waited for; time passes once nobody can do anything.
    let asking = async {
        loop {
            peer.write_all(PLAYLIST).await.unwrap();
            taken += PLAYLIST.len();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), asking).await.is_err());
    assert!(taken <= ROOM + 2 * MAX_HEAD_BYTES, "{taken} bytes are kept");
}

#[tokio::test]
async fn a_peer_that_sends_no_more_still_gets_what_it_asked_for_before() {
    let node = Node::new();
    let (mut peer, served) = serve_here(&node, &CancellationToken::new());
    peer.write_all(MISSING.repeat(3).as_bytes()).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(rest(peer).await.matches("HTTP/1.1 404").count(), 3);
    assert_eq!(served.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_head_that_comes_in_two_pieces_is_left_to_others() {
    let node = Node::new();
    let (mut peer, served) = serve_here(&node, &CancellationToken::new());
    peer.write_all(b"GET /live/str").await.unwrap();
    assert_eq!(served.await.unwrap().unwrap().as_deref(), Some(b"GET /live/str".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_while_a_picture_is_waited_for_is_not_waited_for() {
    let node = Node::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let (mut peer, served) = serve_here(&node, &CancellationToken::new());
    peer.write_all(PLAYLIST).await.unwrap();
    // What comes ahead of its time changes nothing.
    peer.write_all(LAST.as_bytes()).await.unwrap();
    let (mut hasty, hastily_served) = serve_here(&node, &CancellationToken::new());
    hasty.write_all(PLAYLIST).await.unwrap();
    let start = tokio::time::Instant::now();
    drop(hasty);
    assert_eq!(hastily_served.await.unwrap().unwrap(), None);
    assert!(start.elapsed().is_zero(), "{:?}", start.elapsed());
    // There will never be a segment; then comes the answer to the request that waited in the pipe.
    let text = rest(peer).await;
    assert!(start.elapsed() >= Duration::from_secs(15), "{:?}", start.elapsed());
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["503", "404"]);
    assert_eq!(served.await.unwrap().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_idle_connections_at_once_and_others_with_their_answer() {
    let node = Node::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let drain = CancellationToken::new();
    let (idle, idly_served) = serve_here(&node, &drain);
    let (mut waiting, served) = serve_here(&node, &drain);
    waiting.write_all(PLAYLIST).await.unwrap();
    // All tasks have come to rest before time passes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = tokio::time::Instant::now();
    drain.cancel();
    assert_eq!(idly_served.await.unwrap().unwrap(), None);
    assert_eq!(rest(idle).await, "");
    assert!(start.elapsed().is_zero());
    let text = rest(waiting).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nconnection: close\r\n\r\n"), "{text}");
    assert_eq!(served.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_connection_ends_with_its_answer_if_its_peer_says_so() {
    let node = Node::new();
    let (mut peer, served) = serve_here(&node, &CancellationToken::new());
    peer.write_all(format!("{LAST}{MISSING}").as_bytes()).await.unwrap();
    let text = rest(peer).await;
    assert_eq!((text.matches("HTTP/1.1").count(), text.matches("connection: close").count()), (1, 1), "{text}");
    assert_eq!(served.await.unwrap().unwrap(), None);
}
