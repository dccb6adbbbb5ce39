//! Tests of the server over TCP: apps, limits, malformed input, draining and TLS.

use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use headwater_wire::rtmp::amf0::Value;
use headwater_wire::rtmp::message::kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::test_client::{Client, command};
use super::test_server::{start_server, start_server_sharing};
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::worker_pool::WorkerPool;

#[tokio::test]
async fn one_address_cannot_take_all_connections_or_stream_names() {
    let shares = SharePolicy::new(&headwater_api::Config::default()).with_loopback();
    let config = config::Rtmp { max_connections: 12.try_into().unwrap(), ..config::Rtmp::default() };
    let server = start_server_sharing(&shares, WorkerPool::inline(), config, None);
    let mut publishers = Vec::new();
    for n in 0..4 {
        publishers.push(server.publisher(&format!("s{n}")).await);
    }
    // Half of the eight names are taken.
    let mut refused = Client::connected(server.socket().await).await;
    refused.request("publish", "s4").await;
    refused.wait_for_status("NetStream.Publish.Denied").await;
    // Half of the twelve connections are taken with this one.
    let last = Client::connected(server.socket().await).await;
    let mut turned_away = server.socket().await;
    assert_eq!(turned_away.read(&mut [0]).await.unwrap_or(0), 0);
    // A name that is free again can be taken.
    drop((publishers, last));
    while !server.hub.streams().is_empty() {
        tokio::task::yield_now().await;
    }
    refused.request("publish", "s4").await;
    refused.wait_for_status("NetStream.Publish.Start").await;
}

#[tokio::test]
async fn unknown_app_or_stream_is_refused_with_a_status() {
    let server = start_server(9, None);
    let mut client = Client::handshake(server.socket().await).await;
    client.connect("other").await;
    client.wait_for_status("NetConnection.Connect.Rejected").await;
    assert!(client.is_closed().await);
    let mut client = Client::connected(server.socket().await).await;
    client.request("play", "later").await;
    client.wait_for_status("NetStream.Play.StreamNotFound").await;
    let mut publisher = server.publisher("later").await;
    publisher.send_video(0, true, 1, 10).await;
    client.request("play", "later").await;
    assert_eq!(client.read_marks(1).await, [1], "the same connection may request again");
}

#[tokio::test]
async fn connection_is_closed_after_ten_refused_requests_in_a_row() {
    let server = start_server(9, None);
    let mut client = Client::connected(server.socket().await).await;
    for _ in 0..5 {
        client.request("publish", "").await;
        client.wait_for_status("NetStream.Publish.BadName").await;
        client.request("play", "none").await;
        client.wait_for_status("NetStream.Play.StreamNotFound").await;
    }
    let publish = command(1, &["publish".into(), 3.0.into(), Value::Null, "".into()]);
    assert!(!client.send_and_ping(&publish).await, "the ping behind the eleventh request is answered");
}

#[tokio::test]
async fn malformed_messages_close_only_their_own_connection() {
    let server = start_server(9, None);
    let nested: Vec<u8> = [&[2, 0, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[3, 0, 1, b'a'].repeat(5_000)].concat();
    let too_short = [2, 0, 7, b'c', b'o', b'n', b'n', b'e', b'c', b't'];
    for body in [&nested[..], &too_short[..], &[]] {
        let mut client = Client::handshake(server.socket().await).await;
        client.send(kind::COMMAND_AMF0, 0, 0, body).await;
        assert!(client.is_closed().await);
    }
    let mut garbage = server.socket().await;
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(garbage.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    server.publisher("demo").await;
}

#[tokio::test]
async fn connection_beyond_the_limit_is_closed_at_once() {
    let server = start_server(1, None);
    let first = server.publisher("demo").await;
    let mut second = server.socket().await;
    assert_eq!(second.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    drop(first);
}

#[tokio::test]
async fn drain_notifies_publishers_and_players_and_closes_them() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    let mut player = server.player("demo").await;
    player.read_marks(1).await;
    server.drain.cancel();
    publisher.wait_for_status("NetConnection.Connect.Closed").await;
    player.wait_for_status("NetStream.Play.UnpublishNotify").await;
    player.wait_for_status("NetConnection.Connect.Closed").await;
    assert!(publisher.is_closed().await && player.is_closed().await);
    server.task.await.unwrap();
}

#[tokio::test]
async fn draining_node_refuses_new_clients_and_keeps_existing_ones() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    let mut player = server.player("demo").await;
    player.read_marks(1).await;
    server.refuse_new.cancel();
    let mut late = Client::connected(server.socket().await).await;
    late.request("play", "demo").await;
    late.wait_for_status("NetStream.Play.Failed").await;
    late.request("publish", "other").await;
    late.wait_for_status("NetStream.Publish.Denied").await;
    publisher.send_video(40, true, 2, 10).await;
    assert_eq!(player.read_marks(1).await, [2]);
}

#[tokio::test]
async fn publisher_with_reconnect_support_is_asked_to_reconnect_then_closed() {
    let server = start_server(9, None);
    let mut publisher = Client::handshake(server.socket().await).await;
    let object = Value::Object(vec![("app".to_owned(), "live".into()), ("capsEx".to_owned(), 1.0.into())]);
    publisher.command(0, &["connect".into(), 1.0.into(), object]).await;
    publisher.wait_for_status("NetConnection.Connect.Success").await;
    publisher.command(0, &["createStream".into(), 2.0.into(), Value::Null]).await;
    publisher.request("publish", "demo").await;
    publisher.wait_for_status("NetStream.Publish.Start").await;
    server.drain.cancel();
    publisher.wait_for_status("NetConnection.Connect.ReconnectRequest").await;
    tokio::time::pause();
    let start = Instant::now();
    publisher.wait_for_status("NetConnection.Connect.Closed").await;
    assert!(publisher.is_closed().await);
    let waited = start.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(5), "{waited:?}");
    server.task.await.unwrap();
}

#[tokio::test]
async fn rtmps_publishes_and_plays_over_tls() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let server = start_server(9, Some(Arc::new(config)));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let connect = async || {
        let socket = TcpStream::connect(server.tls_address.unwrap()).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
    };
    let mut publisher = Client::publisher(connect().await, "demo").await;
    publisher.send_video(0, true, 1, 100_000).await;
    let mut player = Client::player(connect().await, "demo").await;
    assert_eq!(player.read_marks(1).await, [1]);
    for mark in 2..20 {
        publisher.send_video(u32::from(mark) * 33, false, mark, 100_000).await;
        assert_eq!(player.read_marks(1).await, [mark]);
    }
}
