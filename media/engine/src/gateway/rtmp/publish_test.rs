//! Tests of publishing over TCP: requests, refusals, pending requests and notices.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headwater_api::StreamName;
use headwater_wire::rtmp::amf0::Value;
use headwater_wire::rtmp::message::{self, kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::test_client::{Client, avc_header, command, delete_stream, video_body};
use super::test_server::start_server;
use crate::hub::{ClaimFuture, FetchFuture, RelayedStreams, RemoteStreams, Stream, StreamOwnership};

#[tokio::test]
async fn second_publisher_of_a_name_is_refused_and_the_first_continues() {
    let server = start_server(9, None);
    let mut first = server.publisher("demo").await;
    let mut second = Client::connected(server.socket().await).await;
    second.request("publish", "demo").await;
    second.wait_for_status("NetStream.Publish.BadName").await;
    second.request("publish", "../etc").await;
    second.wait_for_status("NetStream.Publish.BadName").await;
    first.send_video(0, true, 9, 10).await;
    assert_eq!(server.player("demo").await.read_marks(1).await, [9]);
}

/// What nginx-rtmp's `push` sends at once: the request, and all media behind it.
fn publish_and_media(name: &str) -> Vec<u8> {
    let mut out = BytesMut::from(&command(1, &["publish".into(), 3.0.into(), Value::Null, name.into()])[..]);
    message::write(&mut out, kind::VIDEO, 1, 0, &avc_header(), &[]);
    message::write(&mut out, kind::VIDEO, 1, 0, &video_body(true, 1, 300_000), &[]);
    message::write(&mut out, kind::VIDEO, 1, 33, &video_body(false, 2, 10), &[]);
    out.to_vec()
}

#[tokio::test]
async fn media_in_the_same_write_as_the_publish_request_is_not_lost() {
    let server = start_server(9, None);
    let mut publisher = Client::connected(server.socket().await).await;
    publisher.socket.write_all(&publish_and_media("demo")).await.unwrap();
    publisher.wait_for_status("NetStream.Publish.Start").await;
    assert_eq!(server.player("demo").await.read_marks(2).await, [1, 2]);
}

#[tokio::test]
async fn media_waits_until_the_cluster_has_accepted_the_publish_request() {
    let server = start_server(9, None);
    let (claim_tx, claim_rx) = tokio::sync::watch::channel(false);
    server.hub.join_cluster(Box::new(UnresponsiveCluster), Some(Box::new(SlowCluster(claim_rx))));
    let mut publisher = Client::connected(server.socket().await).await;
    // In pieces: some of it is read before the answer, some of it after.
    let bytes = publish_and_media("demo");
    let (first, rest) = bytes.split_at(200);
    publisher.socket.write_all(first).await.unwrap();
    let name_is_reserved = async {
        while server.hub.streams().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), name_is_reserved).await.expect("the request is lost");
    let (mut reader, mut writer) = tokio::io::split(publisher.socket);
    let writing = async { writer.write_all(rest).await.unwrap() };
    let accepting = async {
        claim_tx.send_replace(true);
        // The answers; the connection stays open while they are read.
        assert!(reader.read(&mut [0; 4_096]).await.unwrap() > 0);
    };
    tokio::join!(writing, accepting);
    assert_eq!(server.player("demo").await.read_marks(2).await, [1, 2]);
}

#[tokio::test]
async fn stream_without_a_decoder_configuration_gets_a_notice() {
    let server = start_server(9, None);
    let mut publisher = Client::connected(server.socket().await).await;
    publisher.request("publish", "demo").await;
    publisher.wait_for_status("NetStream.Publish.Start").await;
    for n in 0..30_u8 {
        publisher.send_video(u32::from(n) * 33, true, n, 10).await;
    }
    assert!(publisher.send_and_ping(&[]).await);
    let notices = server.stream("demo").status().notices;
    assert!(notices[0].message.contains("without a decoder configuration"), "{notices:?}");
}

#[tokio::test]
async fn b_frames_notice_names_the_setting_that_disables_them() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    for (ms, composition_ms) in [(40, 80), (80, 0), (120, 80), (160, 0)] {
        publisher.send(kind::VIDEO, 1, ms, &[0x27, 1, 0, 0, composition_ms, 0, 0, 0, 1, 0x41]).await;
    }
    server.player("demo").await.read_marks(1).await;
    let stream = server.hub.stream(&StreamName::new("live", "demo").unwrap()).unwrap();
    stream.tracks().wait_for(|tracks| tracks.b_frames).await.unwrap();
    let notices = stream.status().notices;
    assert_eq!(notices[0].code, "b_frames");
    assert!(notices[0].message.contains("zerolatency"));
}

#[tokio::test]
async fn publish_request_cancelled_in_the_same_write_leaves_the_name_free() {
    let server = start_server(9, None);
    let mut client = Client::connected(server.socket().await).await;
    let publish = command(1, &["publish".into(), 3.0.into(), Value::Null, "demo".into()]);
    assert!(client.send_and_ping(&[publish, delete_stream()].concat()).await);
    assert!(server.hub.streams().is_empty());
    server.publisher("demo").await;
}

#[tokio::test]
async fn publish_request_cancelled_during_the_cluster_query_leaves_the_name_free() {
    let server = start_server(9, None);
    server.hub.join_cluster(Box::new(UnresponsiveCluster), Some(Box::new(UnresponsiveCluster)));
    let mut client = Client::connected(server.socket().await).await;
    client.request("publish", "demo").await;
    assert!(client.send_and_ping(&[]).await);
    assert_eq!(server.hub.streams().len(), 1, "the name is reserved during the cluster query");
    assert!(client.send_and_ping(&delete_stream()).await);
    assert!(server.hub.streams().is_empty());
}

#[tokio::test]
async fn long_messages_are_accepted_only_from_active_publishers() {
    let mut frame = BytesMut::new();
    message::write(&mut frame, kind::VIDEO, 1, 0, &[0x17, 1, 0, 0, 0], &[7; 100_000]);
    let server = start_server(9, None);
    let mut early = Client::connected(server.socket().await).await;
    assert!(!early.send_and_ping(&frame).await);
    let mut publisher = server.publisher("demo").await;
    assert!(publisher.send_and_ping(&frame).await);
    assert!(publisher.send_and_ping(&delete_stream()).await);
    assert!(!publisher.send_and_ping(&frame).await);
}

/// A cluster that never answers.
#[derive(Debug)]
struct UnresponsiveCluster;

impl RemoteStreams for UnresponsiveCluster {
    fn fetch(&self, _: &RelayedStreams, _: &StreamName) -> FetchFuture {
        Box::pin(std::future::pending())
    }
}

impl StreamOwnership for UnresponsiveCluster {
    fn claim(&self, _: &Arc<Stream>) -> ClaimFuture {
        Box::pin(std::future::pending())
    }
}

/// A cluster that answers once the value is true.
#[derive(Debug)]
struct SlowCluster(tokio::sync::watch::Receiver<bool>);

impl StreamOwnership for SlowCluster {
    fn claim(&self, _: &Arc<Stream>) -> ClaimFuture {
        let mut claim_rx = self.0.clone();
        Box::pin(async move {
            let _ = claim_rx.wait_for(|accepted| *accepted).await;
            Ok(Box::new(()) as Box<dyn Send + Sync>)
        })
    }
}
