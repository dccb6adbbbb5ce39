//! Tests of the RTMP server over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headwater_api::{StreamName, config};
use headwater_wire::MAX_FRAME_BYTES;
use headwater_wire::rtmp::amf0::{self, Value};
use headwater_wire::rtmp::message::{self, kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client_test::{Client, avc_header, video_body};
use super::{Server, Services};
use crate::access::{Access, Apps};
use crate::events::EventBus;
use crate::hub::{ClaimFuture, FetchFuture, Hub, Limits, RelayedStreams, RemoteStreams, Stream, StreamOwnership};
use crate::node::admission::Admission;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::worker_pool::WorkerPool;

struct TestServer {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    hub: Hub,
    /// Makes the node refuse new publishers and viewers.
    refuse_new: CancellationToken,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

fn start_server(max_connections: usize, tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    start_server_on(WorkerPool::inline(), max_connections, tls)
}

fn start_server_on(workers: WorkerPool, max_connections: usize, tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    let max_connections = max_connections.try_into().unwrap();
    start_server_with(workers, config::Rtmp { max_connections, ..config::Rtmp::default() }, tls)
}

fn start_server_with(workers: WorkerPool, config: config::Rtmp, tls: Option<Arc<rustls::ServerConfig>>) -> TestServer {
    start_server_sharing(&SharePolicy::new(&headwater_api::Config::default()), workers, config, tls)
}

/// With room for eight stream names.
fn start_server_sharing(
    shares: &SharePolicy,
    workers: WorkerPool,
    config: config::Rtmp,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> TestServer {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(&config::Rtmp { listen: any, tls_listen: any, ..config }, shares, tls).unwrap();
    let (address, tls_address) = (server.local_addr(), server.tls_local_addr());
    let (hub, drain) = (Hub::new(Limits::default()), CancellationToken::new());
    let refuse_new = CancellationToken::new();
    let config = headwater_api::Config::default();
    let meter = crate::node::load::LoadMeter::new(&config);
    let no_daemon = crate::node::health::NodeHealthReceiver::disconnected();
    let admission = Admission::new(&config.limits, &meter, &hub, &no_daemon, &refuse_new);
    let access = Access::new(Apps::new(["live".to_owned()]));
    let stream_names = shares.pool(8);
    let services = Services { hub: hub.clone(), access, admission, events: EventBus::default(), stream_names };
    let task = tokio::spawn(server.run(services, workers, drain.clone()));
    TestServer { address, tls_address, hub, refuse_new, drain, task }
}

impl TestServer {
    async fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    async fn publisher(&self, name: &str) -> Client {
        Client::publisher(self.socket().await, name).await
    }

    fn stream(&self, id: &str) -> Arc<Stream> {
        self.hub.stream(&StreamName::new("live", id).unwrap()).unwrap()
    }

    async fn player(&self, name: &str) -> Client {
        Client::player(self.socket().await, name).await
    }
}

#[tokio::test]
async fn player_starts_at_the_last_key_frame_and_receives_later_frames() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo?token=secret").await;
    for (ms, key, mark) in [(0, true, 1), (33, false, 2), (66, true, 3), (99, false, 4)] {
        publisher.send_video(ms, key, mark, 20_000).await;
    }
    let mut first = server.player("demo").await;
    assert_eq!(first.read_marks(2).await, [3, 4]);
    publisher.send_video(133, false, 5, 200_000).await;
    assert_eq!(first.read_marks(1).await, [5]);
    let mut second = server.player("demo").await;
    assert_eq!(second.read_marks(3).await, [3, 4, 5]);
    publisher.send_video(166, false, 6, 10).await;
    assert_eq!((first.read_marks(1).await, second.read_marks(1).await), (vec![6], vec![6]));
    let stream = server.hub.stream(&StreamName::new("live", "demo").unwrap()).unwrap();
    assert_eq!(stream.status().viewers.rtmp, 2);
}

#[tokio::test]
async fn hundred_players_of_one_stream_receive_every_frame() {
    let server = start_server(200, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 0, 1_000).await;
    let mut players = Vec::new();
    for _ in 0..100 {
        players.push(server.player("demo").await);
    }
    for mark in 1..=10 {
        publisher.send_video(u32::from(mark) * 33, false, mark, 1_000).await;
    }
    for player in &mut players {
        assert_eq!(player.read_marks(11).await, (0..=10).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn players_lose_no_frame_when_their_writer_migrates_from_an_overloaded_worker() {
    let workers = WorkerPool::start().unwrap();
    let server = start_server_on(workers.clone(), 9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 0, 1_000).await;
    let mut player = server.player("demo").await;
    publisher.send_video(33, false, 1, 1_000).await;
    assert_eq!(player.read_marks(2).await, [0, 1]);
    workers.placement().mark_all_overloaded();
    for mark in 2..=9 {
        publisher.send_video(u32::from(mark) * 33, false, mark, 1_000).await;
    }
    assert_eq!(player.read_marks(8).await, (2..=9).collect::<Vec<u8>>());
    // The writer of this frame has checked the load since the first one.
    publisher.send_video(330, false, 10, 1_000).await;
    assert_eq!(player.read_marks(1).await, [10]);
    assert!(!workers.placement().is_overloaded(0), "the writer has left the publisher's worker");
}

#[tokio::test]
async fn audio_is_sent_with_the_next_video_frame_or_after_45_ms() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send(kind::AUDIO, 1, 0, &[0xaf, 0, 0x11, 0x90]).await;
    publisher.send_video(0, true, 1, 10).await;
    let mut player = server.player("demo").await;
    player.read_marks(1).await;
    // No video frame follows: the timer sends the audio.
    publisher.send(kind::AUDIO, 1, 10, &[0xaf, 1, 7]).await;
    let message = player.next().await.unwrap();
    assert_eq!((message.kind, &message.payload[..]), (kind::AUDIO, &[0xaf, 1, 7][..]));
    publisher.send(kind::AUDIO, 1, 31, &[0xaf, 1, 8]).await;
    publisher.send_video(33, false, 2, 10).await;
    let order = [player.next().await.unwrap().kind, player.next().await.unwrap().kind];
    assert_eq!(order, [kind::AUDIO, kind::VIDEO]);
}

#[tokio::test]
async fn merge_audio_setting_decides_whether_audio_waits_for_video() {
    for (merge_audio, delay_ms) in [(false, 0..=2), (true, 44..=47)] {
        let config = config::Rtmp { merge_audio, ..config::Rtmp::default() };
        let server = start_server_with(WorkerPool::inline(), config, None);
        let mut publisher = server.publisher("demo").await;
        publisher.send(kind::AUDIO, 1, 0, &[0xaf, 0, 0x11, 0x90]).await;
        publisher.send_video(0, true, 1, 10).await;
        let mut player = server.player("demo").await;
        player.read_marks(1).await;
        tokio::time::pause();
        let start = Instant::now();
        publisher.send(kind::AUDIO, 1, 10, &[0xaf, 1, 7]).await;
        assert_eq!(player.next().await.unwrap().kind, kind::AUDIO);
        let waited = start.elapsed();
        assert!(delay_ms.contains(&waited.as_millis()), "merge_audio = {merge_audio}: {waited:?}");
        tokio::time::resume();
    }
}

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
async fn player_is_notified_of_the_end_and_can_play_the_next_generation() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 1, 10).await;
    let mut player = server.player("demo").await;
    player.read_marks(1).await;
    drop(publisher);
    player.wait_for_status("NetStream.Play.UnpublishNotify").await;
    let eof = player.next().await.unwrap();
    assert_eq!((eof.kind, &eof.payload[..]), (kind::USER_CONTROL, &[0, 1, 0, 0, 0, 1][..]));
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 2, 10).await;
    player.request("play", "demo").await;
    assert_eq!(player.read_marks(1).await, [2]);
}

#[tokio::test]
async fn slow_player_skips_to_a_key_frame_without_affecting_others() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    publisher.send_video(0, true, 0, 1_000).await;
    let mut slow = server.player("demo").await;
    let mut fast = server.player("demo").await;
    fast.read_marks(1).await;
    // 60 MB: more than the socket buffers hold. Every fourth frame is a key frame.
    for n in 1..=240_u32 {
        publisher.send_video(n * 33, n % 4 == 0, n as u8, 250_000).await;
        assert_eq!(fast.read_marks(1).await, [n as u8], "the fast player receives every frame");
    }
    let mut last = slow.read_marks(1).await[0];
    let mut gaps = 0;
    while last != 240 {
        let mark = slow.read_marks(1).await[0];
        if mark != last + 1 {
            assert_eq!(mark % 4, 0, "resumes at a key frame, not at {mark} after {last}");
            gaps += 1;
        }
        last = mark;
    }
    assert!(gaps >= 1, "nothing was lost: the test sends too little");
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

fn command(stream: u32, values: &[Value]) -> Vec<u8> {
    let mut out = BytesMut::new();
    message::write(&mut out, kind::COMMAND_AMF0, stream, 0, &amf0::encode(values), &[]);
    out.to_vec()
}

fn delete_stream() -> Vec<u8> {
    command(0, &["deleteStream".into(), 4.0.into(), Value::Null, 1.0.into()])
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

#[tokio::test]
async fn key_frame_of_16_mib_is_published_and_played() {
    let server = start_server(9, None);
    let mut publisher = server.publisher("demo").await;
    let mut player = server.player("demo").await;
    for (ms, mark, bytes) in [(0, 1, (4 << 20) + 100_000), (33, 2, MAX_FRAME_BYTES - 5), (66, 3, 1_000)] {
        publisher.send_video(ms, mark < 3, mark, bytes).await;
        assert_eq!(player.read_marks(1).await, [mark]);
    }
    assert_eq!(server.player("demo").await.read_marks(2).await, [2, 3]);
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
