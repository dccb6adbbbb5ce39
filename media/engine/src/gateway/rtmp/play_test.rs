//! Tests of playing over TCP: what players receive, and when.

use headwater_api::{StreamName, config};
use headwater_wire::MAX_FRAME_BYTES;
use headwater_wire::rtmp::message::kind;
use tokio::time::Instant;

use super::test_server::{start_server, start_server_on, start_server_with};
use crate::runtime::worker_pool::WorkerPool;

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
