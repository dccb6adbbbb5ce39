//! Tests of connections from the client's side: their maximum number and every timeout.

use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use headwater_api::{Config, config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::http::media::hls::viewer_id::viewer_id;
use crate::http::serve::client::Client;
use crate::http::serve::listener::Server;
use crate::http::serve::timeout::{HEAD_TIMEOUT, IDLE_TIMEOUT, WRITE_TIMEOUT};
use crate::http::test_node::TestNode;
use crate::runtime::client_pool::SharePolicy;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// Larger than a pipe of [`NARROW`] bytes, smaller than the buffer of TLS.
const ANSWER: &[u8] = &[b'a'; 8 << 10];
const NARROW: usize = 64;
/// Larger than any request or response in these tests.
const ROOM: usize = 64 << 10;
/// Tolerance for late timers.
const TIMER_TOLERANCE: Duration = Duration::from_millis(10);

fn service() -> HttpService {
    Router::new().route("/", get(async || ANSWER)).into()
}

/// A service, a request, and the end of its response.
struct Case {
    service: HttpService,
    request: &'static [u8],
    end: &'static [u8],
    _node: Option<TestNode>,
}

/// One request that hyper handles, and one of the fast path.
fn cases() -> [Case; 2] {
    let node = TestNode::new();
    let long = Case { service: service(), request: REQUEST, end: ANSWER, _node: None };
    let request = b"GET /live/streams/missing.m3u8 HTTP/1.1\r\nhost: x\r\n\r\n";
    [long, Case { service: HttpService::new(node.state.clone()), request, end: b"right now.\"}", _node: Some(node) }]
}

fn pool(places: usize) -> ClientPool {
    SharePolicy::new(&Config::default()).pool(places)
}

/// Serves the other end of a pipe, optionally with TLS.
async fn serve(service: HttpService, stream: DuplexStream, tls: Option<TlsAcceptor>) {
    serve_behind(TrustedProxies::default(), service, stream, tls).await;
}

async fn serve_behind(proxies: TrustedProxies, service: HttpService, stream: DuplexStream, tls: Option<TlsAcceptor>) {
    let metrics = Metrics::default();
    let connections =
        Connections::new(service, pool(1), proxies, metrics, WorkerPool::inline(), CancellationToken::new());
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let place = connections.pool.take(peer.ip()).unwrap();
    match tls {
        None => connections.serve(stream, peer, Encryption::None, place).await,
        Some(tls) => connections.serve(tls.accept(stream).await.unwrap(), peer, Encryption::Certified, place).await,
    }
}

/// A forged address must not raise the viewer count, whichever path answers the request.
#[tokio::test(start_paused = true)]
async fn forwarded_client_is_counted_only_behind_a_trusted_proxy() {
    let name = headwater_api::StreamName::parse("live/a").unwrap();
    let client = |address: [u8; 4]| Client { address: address.into(), encryption: Encryption::None, is_local: false };
    let (peer_viewer, forwarded_viewer) = (viewer_id(client([127, 0, 0, 1])), viewer_id(client([198, 51, 100, 7])));
    for (networks, expected) in [(vec![], peer_viewer), (vec!["127.0.0.0/8".parse().unwrap()], forwarded_viewer)] {
        for extra in ["", "content-length: 0\r\n"] {
            let node = TestNode::new();
            let _publisher = node.publish("live/a", "rtmp", 0);
            let (mut peer, stream) = duplex(ROOM);
            let proxies = TrustedProxies::new(&networks);
            tokio::spawn(serve_behind(proxies, HttpService::new(node.state.clone()), stream, None));
            let request = format!(
                "GET /live/streams/a.m3u8 HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 9.9.9.9, 198.51.100.7\r\n{extra}\r\n"
            );
            peer.write_all(request.as_bytes()).await.unwrap();
            // The response arrives after the viewer is forgotten: there is no complete segment.
            let counted = async {
                loop {
                    let counted =
                        [peer_viewer, forwarded_viewer].map(|viewer| node.state.hls.has_viewer(&name, viewer));
                    if counted != [false, false] {
                        break counted;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let counted = tokio::time::timeout(Duration::from_secs(5), counted).await.expect("no viewer is counted");
            assert_eq!(counted, [expected == peer_viewer, expected == forwarded_viewer], "{networks:?} {extra:?}");
        }
    }
}

/// Reads until the response is complete.
async fn read_answer(peer: &mut (impl AsyncRead + Unpin), end: &[u8]) {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        assert_ne!(peer.read_buf(&mut text).await.unwrap(), 0, "the response is incomplete");
    }
}

async fn ends_after(limit: Duration, start: Instant, serving: JoinHandle<()>) {
    tokio::time::timeout(2 * limit, serving).await.expect("the connection stays open").unwrap();
    let took = start.elapsed();
    assert!((limit..limit + TIMER_TOLERANCE).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_connection_closes_75_seconds_after_a_response() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.service, stream, None));
        for _ in 0..2 {
            peer.write_all(case.request).await.unwrap();
            read_answer(&mut peer, case.end).await;
            tokio::time::advance(IDLE_TIMEOUT - Duration::from_secs(1)).await;
        }
        peer.write_all(case.request).await.unwrap();
        read_answer(&mut peer, case.end).await;
        ends_after(IDLE_TIMEOUT, Instant::now(), serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_request_head_times_out_10_seconds_after_its_first_byte() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.service, stream, None));
        peer.write_all(case.request).await.unwrap();
        read_answer(&mut peer, case.end).await;
        tokio::time::advance(HEAD_TIMEOUT).await;
        let start = Instant::now();
        for byte in &case.request[..5] {
            peer.write_u8(*byte).await.unwrap();
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        ends_after(HEAD_TIMEOUT, start, serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn response_that_is_not_read_times_out_after_20_seconds() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.service, stream, None));
        peer.write_all(case.request).await.unwrap();
        ends_after(WRITE_TIMEOUT, Instant::now(), serving).await;
    }
}

/// The server's and the client's side of TLS.
fn tls() -> (TlsAcceptor, tokio_rustls::TlsConnector) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), tokio_rustls::TlsConnector::from(Arc::new(client)))
}

#[tokio::test(start_paused = true)]
async fn response_buffered_in_tls_times_out_after_20_seconds() {
    let (acceptor, connector) = tls();
    for case in cases() {
        let (peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.service, stream, Some(acceptor.clone())));
        let mut peer = connector.connect("localhost".try_into().unwrap(), peer).await.unwrap();
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        read_answer(&mut peer, case.end).await;
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        ends_after(WRITE_TIMEOUT, Instant::now(), serving).await;
    }
}

/// RFC 8446 §6.1: without close_notify a peer cannot distinguish the end from a truncation.
#[tokio::test(start_paused = true)]
async fn idle_tls_connection_closes_with_close_notify() {
    let (acceptor, connector) = tls();
    for case in cases() {
        let (peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.service, stream, Some(acceptor.clone())));
        let mut peer = connector.connect("localhost".try_into().unwrap(), peer).await.unwrap();
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        read_answer(&mut peer, case.end).await;
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
        serving.await.unwrap();
    }
}

/// A connected socket and the peer's end.
async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, peer)
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let metrics = Metrics::default();
    let (drain, proxies) = (CancellationToken::new(), TrustedProxies::default());
    let connections = Connections::new(service(), pool(8), proxies, metrics.clone(), WorkerPool::inline(), drain);
    let mut peers = Vec::new();
    for (address, accepted) in [("192.0.2.1", 4), ("192.0.2.1", 4), ("192.0.2.2", 6), ("2001:db8::1", 8)] {
        for port in 0..4 {
            let (stream, peer) = socket_pair().await;
            connections.start(stream, SocketAddr::new(address.parse().unwrap(), port), None);
            peers.push(peer);
        }
        assert_eq!(metrics.accepted.get(), accepted, "{address}");
    }
    assert_eq!(metrics.turned_away.get(), 8);
    let (stream, mut viewer) = socket_pair().await;
    drop(peers);
    while connections.pool.taken() > 0 {
        tokio::task::yield_now().await;
    }
    connections.start(stream, "192.0.2.1:1".parse().unwrap(), None);
    viewer.write_all(REQUEST).await.unwrap();
    read_answer(&mut viewer, ANSWER).await;
}

#[tokio::test]
async fn connection_beyond_the_limit_is_closed_until_another_one_ends() {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
    let config = config::Http {
        listen: any,
        tls_listen: any,
        max_connections: 1.try_into().unwrap(),
        ..config::Http::default()
    };
    let server = Server::bind(&config, &SharePolicy::new(&Config::default()), None).unwrap();
    let (address, metrics) = (server.local_addr().unwrap(), server.metrics());
    let drain = CancellationToken::new();
    let running = tokio::spawn(server.run(service(), WorkerPool::inline(), drain.clone(), Duration::ZERO));
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    read_answer(&mut first, ANSWER).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    assert_eq!((metrics.accepted.get(), metrics.turned_away.get()), (1, 1));
    first.write_all(REQUEST).await.unwrap();
    read_answer(&mut first, ANSWER).await;
    drop(first);
    // The server accepts again once it has noticed the end of the first connection.
    let mut later = Vec::new();
    while later.is_empty() {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(REQUEST).await;
        let _ = socket.read_buf(&mut later).await;
    }
    assert!(later.starts_with(b"HTTP/1.1 200"));
    drain.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tls_handshake_without_bytes_times_out_after_10_seconds() {
    let (acceptor, _) = tls();
    let (drain, proxies) = (CancellationToken::new(), TrustedProxies::default());
    let connections = Connections::new(service(), pool(1), proxies, Metrics::default(), WorkerPool::inline(), drain);
    let (stream, mut peer) = socket_pair().await;
    let start = Instant::now();
    let tls = ListenerTls { acceptor, is_self_signed: false };
    connections.start(stream, peer.local_addr().unwrap(), Some(tls));
    let closed = tokio::time::timeout(2 * HEAD_TIMEOUT, peer.read(&mut [0])).await;
    assert_eq!(closed.expect("the connection stays open").unwrap_or(0), 0);
    let took = start.elapsed();
    assert!((HEAD_TIMEOUT..HEAD_TIMEOUT + TIMER_TOLERANCE).contains(&took), "{took:?}");
}

/// Without a known end of the body, the next request cannot be found (RFC 9112 §9.6).
#[tokio::test(start_paused = true)]
async fn connection_closes_after_the_response_to_a_request_in_chunks() {
    let (mut peer, stream) = duplex(ROOM);
    let serving = tokio::spawn(serve(service(), stream, None));
    let start = Instant::now();
    peer.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        assert_ne!(peer.read_buf(&mut response).await.unwrap(), 0, "the response is incomplete");
    }
    assert!(String::from_utf8_lossy(&response).contains("connection: close"), "{response:?}");
    drop(peer);
    serving.await.unwrap();
    assert!(start.elapsed() < IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn drain_closes_an_idle_connection_at_once() {
    for case in cases() {
        let (drain, proxies) = (CancellationToken::new(), TrustedProxies::default());
        let connections =
            Connections::new(case.service, pool(1), proxies, Metrics::default(), WorkerPool::inline(), drain.clone());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let place = connections.pool.take(address.ip()).unwrap();
        let (mut peer, stream) = duplex(ROOM);
        let serving = tokio::spawn(connections.serve(stream, address, Encryption::None, place));
        peer.write_all(case.request).await.unwrap();
        read_answer(&mut peer, case.end).await;
        drain.cancel();
        let start = Instant::now();
        tokio::time::timeout(IDLE_TIMEOUT / 2, serving).await.expect("the connection stays open").unwrap();
        assert!(start.elapsed() <= TIMER_TOLERANCE, "{:?}", start.elapsed());
    }
}
