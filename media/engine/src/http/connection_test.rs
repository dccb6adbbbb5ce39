//! Connections as their peers see them: how many there may be, and how long one waits for its peer.

use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use headwater_api::config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::patience::{HEAD, IDLE, STALLED};
use super::super::server::Server;
use super::super::test_node::Node;
use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// More than a pipe of [`NARROW`] bytes takes, less than TLS keeps.
const ANSWER: &[u8] = &[b'a'; 8 << 10];
const NARROW: usize = 64;
/// What timers may be late by.
const LATE: Duration = Duration::from_millis(10);

fn site() -> Site {
    Router::new().route("/", get(async || ANSWER)).into()
}

/// What is asked of which site, and how the answer ends.
struct Case {
    site: Site,
    request: &'static [u8],
    end: &'static [u8],
    _node: Option<Node>,
}

/// A request for the library, and one that is answered without it.
fn cases() -> [Case; 2] {
    let node = Node::new();
    let long = Case { site: site(), request: REQUEST, end: ANSWER, _node: None };
    let request = b"GET /live/streams/missing.m3u8 HTTP/1.1\r\nhost: x\r\n\r\n";
    [long, Case { site: Site::of(node.state.clone()), request, end: b"right now.\"}", _node: Some(node) }]
}

/// Serves the other end of a pipe without or with TLS.
async fn serve(site: Site, stream: DuplexStream, tls: Option<TlsAcceptor>) {
    let metrics = Metrics::default();
    let connections = Connections::new(site, 1, metrics, Lanes::here(), CancellationToken::new());
    let permit = Arc::clone(&connections.permits).try_acquire_owned().unwrap();
    let peer = (Ipv4Addr::LOCALHOST, 1).into();
    match tls {
        None => connections.serve(stream, peer, false, permit).await,
        Some(tls) => connections.serve(tls.accept(stream).await.unwrap(), peer, true, permit).await,
    }
}

/// Reads until the whole answer has come.
async fn read_answer(peer: &mut (impl AsyncRead + Unpin), end: &[u8]) {
    let mut text = Vec::new();
    while !text.ends_with(end) {
        assert_ne!(peer.read_buf(&mut text).await.unwrap(), 0, "the answer is not whole");
    }
}

async fn ends_after(limit: Duration, start: Instant, serving: JoinHandle<()>) {
    tokio::time::timeout(2 * limit, serving).await.expect("the connection stays open").unwrap();
    let took = start.elapsed();
    assert!((limit..limit + LATE).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_request_may_come_75_seconds_after_an_answer_and_not_later() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.site, stream, None));
        for _ in 0..2 {
            peer.write_all(case.request).await.unwrap();
            read_answer(&mut peer, case.end).await;
            tokio::time::advance(IDLE - Duration::from_secs(1)).await;
        }
        peer.write_all(case.request).await.unwrap();
        read_answer(&mut peer, case.end).await;
        ends_after(IDLE, Instant::now(), serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_given_up_ten_seconds_after_its_first_byte() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.site, stream, None));
        peer.write_all(case.request).await.unwrap();
        read_answer(&mut peer, case.end).await;
        tokio::time::advance(HEAD).await;
        let start = Instant::now();
        for byte in &case.request[..5] {
            peer.write_u8(*byte).await.unwrap();
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        ends_after(HEAD, start, serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_given_up_after_twenty_seconds() {
    for case in cases() {
        let (mut peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.site, stream, None));
        peer.write_all(case.request).await.unwrap();
        ends_after(STALLED, Instant::now(), serving).await;
    }
}

/// Both ends of TLS.
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
async fn an_answer_that_waits_inside_tls_is_given_up_after_twenty_seconds() {
    let (acceptor, connector) = tls();
    for case in cases() {
        let (peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.site, stream, Some(acceptor.clone())));
        let mut peer = connector.connect("localhost".try_into().unwrap(), peer).await.unwrap();
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        read_answer(&mut peer, case.end).await;
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        ends_after(STALLED, Instant::now(), serving).await;
    }
}

/// RFC 8446 §6.1: without it a peer cannot tell the end from a cut.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_silent_too_long_ends_with_tls_s_farewell() {
    let (acceptor, connector) = tls();
    for case in cases() {
        let (peer, stream) = duplex(NARROW);
        let serving = tokio::spawn(serve(case.site, stream, Some(acceptor.clone())));
        let mut peer = connector.connect("localhost".try_into().unwrap(), peer).await.unwrap();
        peer.write_all(case.request).await.unwrap();
        peer.flush().await.unwrap();
        read_answer(&mut peer, case.end).await;
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once_and_a_free_place_is_taken_again() {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let config = config::Http { listen: any, tls_listen: any, max_connections: 1.try_into().unwrap() };
    let server = Server::bind(&config, None).unwrap();
    let (address, metrics) = (server.local_addr(), server.metrics());
    let drain = CancellationToken::new();
    let running = tokio::spawn(server.run(site(), Lanes::here(), drain.clone(), Duration::ZERO));
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    read_answer(&mut first, ANSWER).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    assert_eq!((metrics.accepted.get(), metrics.turned_away.get()), (1, 1));
    first.write_all(REQUEST).await.unwrap();
    read_answer(&mut first, ANSWER).await;
    drop(first);
    // The place is free once the server has seen the end of the first one.
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
