//! Tests of line ends in request heads and of the staged close, with hyper and with a pipe.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

const ROOM: usize = 64 << 10;

/// Serves with hyper: answers each request with its method and its body, or with 413 without
/// reading the body if that has more than 16 bytes.
async fn serve<T: AsyncRead + AsyncWrite + Unpin>(stream: T) {
    let body = BodyLength::default();
    let service = hyper::service::service_fn({
        let body = body.clone();
        move |request: Request<hyper::body::Incoming>| {
            let is_last = !body.on_request(&request);
            async move {
                let mut response = Response::new(Full::new(Bytes::new()));
                if request.body().size_hint().exact().is_some_and(|length| length > 16) {
                    *response.status_mut() = hyper::StatusCode::PAYLOAD_TOO_LARGE;
                } else {
                    let method = request.method().clone();
                    let text = request.into_body().collect().await.unwrap().to_bytes();
                    *response.body_mut() = Full::from(format!("<{method} {}>", String::from_utf8_lossy(&text)));
                }
                if is_last {
                    response.headers_mut().insert("connection", "close".parse().unwrap());
                }
                Ok::<_, Infallible>(response)
            }
        }
    });
    let stream = TokioIo::new(StrictHeads::new(stream, body));
    let _ = http1::Builder::new().half_close(true).serve_connection(stream, service).await;
}

/// The statuses of the responses to these bytes, and the texts of their bodies.
async fn answers(request: &[u8]) -> (Vec<u16>, Vec<String>) {
    let (mut peer, stream) = duplex(ROOM);
    let serving = tokio::spawn(serve(stream));
    peer.write_all(request).await.unwrap();
    peer.shutdown().await.unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    serving.await.unwrap();
    let statuses = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect();
    let bodies = text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap().to_owned()).collect();
    (statuses, bodies)
}

#[tokio::test]
async fn bare_line_feed_in_a_head_is_refused_wherever_it_is() {
    let whole = "GET / HTTP/1.1\r\nhost: x\r\nx: y\r\n\r\n";
    for (at, _) in whole.match_indices("\r\n") {
        let request = format!("{}{}", &whole[..at], &whole[at + 1..]);
        assert_eq!(answers(request.as_bytes()).await.0, [400], "{request:?}");
    }
    for request in ["\nGET / HTTP/1.1\r\nhost: x\r\n\r\n", "GET / HTTP/1.1\nhost: x\n\n"] {
        assert_eq!(answers(request.as_bytes()).await.0, [400], "{request:?}");
    }
    // Also in a later request of the connection, behind a body.
    let (statuses, bodies) =
        answers(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na\nbGET / HTTP/1.1\r\nhost: x\n\r\n").await;
    assert_eq!((statuses, bodies), (vec![200, 400], vec!["POST a\nb".to_owned()]));
}

#[tokio::test]
async fn line_feeds_in_bodies_and_empty_lines_between_requests_are_no_fault() {
    let requests = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n\na\n\n\
        \r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n\
        POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\nb\n\r\n0\r\n\r\n\
        GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let (statuses, bodies) = answers(requests).await;
    // The response to a body in chunks closes the connection.
    assert_eq!(statuses, [200; 3]);
    assert_eq!(bodies, ["POST \na\n\n", "GET ", "POST \nb\n"]);
}

#[tokio::test]
async fn requests_are_read_alike_however_they_are_split() {
    let requests = b"\r\nPOST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n\n\n\
        GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\nhost: x\r\n\r\n";
    let whole = answers(requests).await;
    assert_eq!(whole.0, [200, 200, 400]);
    for size in [1, 2, 7, 50] {
        let (mut peer, stream) = duplex(size);
        tokio::spawn(serve(stream));
        let (mut reader, mut writer) = tokio::io::split(&mut peer);
        let sending = async {
            let _ = writer.write_all(requests).await;
            let _ = writer.shutdown().await;
        };
        let mut text = String::new();
        let (_, read) = tokio::join!(sending, reader.read_to_string(&mut text));
        read.unwrap();
        let statuses: Vec<u16> = text.split("HTTP/1.1 ").skip(1).map(|a| a[..3].parse().unwrap()).collect();
        assert_eq!(statuses, whole.0, "{size}");
    }
}

#[test]
fn body_length_is_unknown_only_in_chunks() {
    let body = BodyLength::default();
    assert!(body.on_request(&Request::new(Empty::<Bytes>::new())) && body.get() == 0);
    assert!(body.on_request(&Request::new(Full::<Bytes>::from("abc"))) && body.get() == 3);
}

/// A reset would discard the response, which has not been read yet.
#[tokio::test]
async fn refused_body_is_discarded_so_that_the_response_arrives() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let serving = tokio::spawn(serve(stream));
    let body = vec![b'v'; 1 << 20];
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    peer.write_all(head.as_bytes()).await.unwrap();
    peer.write_all(&body).await.unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    drop(peer);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn peer_that_neither_sends_nor_closes_is_waited_for_5_seconds() {
    let (mut peer, stream) = duplex(ROOM);
    let serving = tokio::spawn(serve(stream));
    let start = Instant::now();
    peer.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc").await.unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 413 ") && start.elapsed().is_zero(), "{text}");
    serving.await.unwrap();
    assert!((LINGER_TIMEOUT..LINGER_TIMEOUT + Duration::from_millis(10)).contains(&start.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn peer_that_never_stops_sending_is_cut_off_after_4_megabytes() {
    let (mut peer, stream) = duplex(ROOM);
    let serving = tokio::spawn(serve(stream));
    let start = Instant::now();
    peer.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    let mut sent = 0;
    while let Ok(count) = peer.write(&[0; 16 << 10]).await {
        sent += count;
    }
    serving.await.unwrap();
    assert!((MAX_LINGER_BYTES..MAX_LINGER_BYTES + 4 * ROOM).contains(&sent), "{sent}");
    assert!(start.elapsed().is_zero());
}

/// After a complete request nothing more is expected, so that a closed connection frees its place
/// at once.
#[tokio::test(start_paused = true)]
async fn connection_between_requests_closes_at_once() {
    let (mut peer, stream) = duplex(ROOM);
    let serving = tokio::spawn(serve(stream));
    let start = Instant::now();
    peer.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\na").await.unwrap();
    serving.await.unwrap();
    assert!(start.elapsed().is_zero());
    let mut text = String::new();
    peer.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("<POST a>"), "{text}");
}
