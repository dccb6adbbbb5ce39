//! Tests of the time-outs of connections over TCP.

use std::time::Duration;

use bytes::BytesMut;
use headwater_api::StreamName;
use headwater_wire::rtmp::message::{self, kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::test_client::{Client, video_body};
use super::test_server::start_server;

#[tokio::test]
async fn refused_publisher_that_goes_on_is_closed_after_three_seconds() {
    let server = start_server(9, None);
    let mut first = server.publisher("demo").await;
    let mut second = Client::connected(server.socket().await).await;
    second.request("publish", "demo").await;
    second.wait_for_status("NetStream.Publish.BadName").await;
    tokio::time::pause();
    let start = Instant::now();
    let mut frame = BytesMut::new();
    message::write(&mut frame, kind::VIDEO, 1, 0, &video_body(true, 1, 1_000), &[]);
    while second.send_and_ping(&frame).await {
        assert!(start.elapsed() < Duration::from_secs(10), "the connection stays open");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(2_900)..=Duration::from_millis(3_200)).contains(&took), "{took:?}");
    assert!(first.send_and_ping(&frame).await, "the first publisher continues");
}

#[tokio::test]
async fn player_that_never_reads_is_closed_after_ten_seconds() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 0, 1_000).await;
    let slow = server.player("demo").await;
    let mut fast = server.player("demo").await;
    fast.read_marks(1).await;
    for n in 1..=120_u32 {
        publisher.send_video(n * 33, n % 4 == 0, 1, 250_000).await;
        fast.read_marks(1).await;
    }
    let stream = server.hub.stream(&StreamName::new("live", "demo").unwrap()).unwrap();
    assert_eq!(stream.status().viewers.rtmp, 2);
    tokio::time::pause();
    let start = Instant::now();
    while stream.status().viewers.rtmp == 2 {
        // The publisher sends and the fast player reads: only the slow player may be closed.
        publisher.send_video(5_000, false, 1, 10).await;
        fast.read_marks(1).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() <= Duration::from_secs(21), "{:?}", start.elapsed());
    drop(slow);
}

#[tokio::test]
async fn silent_publisher_is_closed_after_ten_seconds() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    server.player("demo").await.read_marks(1).await;
    tokio::time::pause();
    let start = Instant::now();
    assert!(publisher.is_closed().await);
    let took = start.elapsed();
    assert!((Duration::from_millis(9_500)..=Duration::from_millis(10_100)).contains(&took), "{took:?}");
    assert!(server.hub.streams().is_empty());
}

#[tokio::test]
async fn publisher_that_only_pings_is_closed_after_ten_seconds() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    assert!(publisher.send_and_ping(&[]).await);
    tokio::time::pause();
    let start = Instant::now();
    while !server.hub.streams().is_empty() && start.elapsed() < Duration::from_secs(60) {
        // In short steps: no timeout is applied if the timer fires late.
        tokio::time::advance(Duration::from_millis(100)).await;
        publisher.send_and_ping(&[]).await;
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(9_500)..=Duration::from_millis(10_500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn publisher_that_sends_a_frame_slowly_is_not_silent() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    let mut frame = BytesMut::new();
    message::write(&mut frame, kind::VIDEO, 1, 0, &[0x17, 1, 0, 0, 0], &[7; 300_000]);
    tokio::time::pause();
    // Chunk by chunk; the first one has a message header of 11 bytes (RTMP 1.0 §5.3.1.2.1).
    let mut left = &frame[..];
    for header in std::iter::once(12).chain(std::iter::repeat(1)) {
        let (chunk, rest) = left.split_at(left.len().min(header + message::SEND_CHUNK_BYTES));
        assert!(publisher.send_and_ping(chunk).await, "closed with {} bytes left", left.len());
        tokio::time::advance(Duration::from_secs(9)).await;
        left = rest;
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(server.player("demo").await.read_marks(1).await, [7]);
}

#[tokio::test]
async fn publisher_timeout_starts_when_publishing_is_accepted() {
    let server = start_server(9, None);
    let mut client = Client::connected(server.socket().await).await;
    assert!(client.send_and_ping(&[]).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    client.request("publish", "demo").await;
    client.wait_for_status("NetStream.Publish.Start").await;
    let start = Instant::now();
    assert!(client.is_closed().await);
    let took = start.elapsed();
    assert!((Duration::from_millis(9_500)..=Duration::from_millis(10_100)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn connection_without_a_role_is_closed_after_thirty_seconds() {
    let server = start_server(9, None);
    let mut without_connect = Client::handshake(server.socket().await).await;
    let mut connected = Client::connected(server.socket().await).await;
    assert!(without_connect.send_and_ping(&[]).await && connected.send_and_ping(&[]).await);
    tokio::time::pause();
    let start = Instant::now();
    for client in [&mut without_connect, &mut connected] {
        assert!(client.is_closed().await);
        let took = start.elapsed();
        assert!((Duration::from_millis(29_000)..=Duration::from_millis(30_100)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn connection_without_a_role_that_pings_is_closed_after_sixty_seconds() {
    let server = start_server(9, None);
    let mut client = Client::connected(server.socket().await).await;
    assert!(client.send_and_ping(&[]).await);
    tokio::time::pause();
    let start = Instant::now();
    while client.send_and_ping(&[]).await {
        assert!(start.elapsed() < Duration::from_secs(90), "the connection stays open");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(59_500)..=Duration::from_millis(60_500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn incomplete_handshake_is_closed_after_five_seconds() {
    let server = start_server(9, None);
    let mut socket = server.socket().await;
    socket.write_all(&[3; 700]).await.unwrap();
    tokio::time::pause();
    let start = Instant::now();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(start.elapsed() <= Duration::from_millis(5_100));
}
