//! Tests of the hub's guarantees to producers and consumers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::{Codec, Frame, MediaKind, MediaTime, Track, VideoTrack};

use super::{Hub, Limits, PerStream, PublishError};

fn name() -> StreamName {
    StreamName::new("live", "a").unwrap()
}

fn track() -> Arc<Track> {
    Arc::new(Track {
        codec: Codec::H264,
        config: Bytes::new(),
        codec_string: None,
        video: Some(VideoTrack::default()),
        audio: None,
    })
}

fn frame(track: &Arc<Track>, ms: i64, key: bool) -> Frame {
    let t = MediaTime::from_ms(ms);
    Frame { track: Arc::clone(track), dts: t, pts: t, key, payload: Bytes::from_static(b"x") }
}

#[tokio::test]
async fn new_consumer_starts_at_the_last_key_frame() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let track = track();
    for (ms, key) in [(0, true), (33, false), (66, true), (99, false)] {
        producer.send(frame(&track, ms, key));
    }
    let mut consumer = hub.stream(&name()).unwrap().consumer();
    assert_eq!(consumer.next().await.unwrap().frame.dts.as_ms(), 66);
    assert_eq!(consumer.next().await.unwrap().frame.dts.as_ms(), 99);
    drop(producer);
    assert!(consumer.next().await.is_none());
    assert!(hub.stream(&name()).is_none());
}

#[tokio::test]
async fn lagging_consumer_resumes_at_a_key_frame() {
    let hub = Hub::new(Limits { depth_frames: 4, ..Limits::default() });
    let mut producer = hub.publish(&name(), "test").unwrap();
    let track = track();
    producer.send(frame(&track, 0, true));
    let mut consumer = producer.stream().consumer();
    assert_eq!(consumer.next().await.unwrap().frame.dts.as_ms(), 0);
    for ms in 1..20 {
        producer.send(frame(&track, ms, ms == 18));
    }
    let item = consumer.next().await.unwrap();
    assert!(item.frame.key);
    assert_eq!(item.frame.dts.as_ms(), 18);
    assert_eq!(consumer.take_lost().unwrap().frames, 17);
}

#[tokio::test]
async fn second_publisher_is_refused_until_the_first_ends() {
    let hub = Hub::new(Limits::default());
    let first = hub.publish(&name(), "test").unwrap();
    assert_eq!(hub.publish(&name(), "test").unwrap_err(), PublishError::AlreadyLive(name()));
    drop(first);
    assert!(hub.publish(&name(), "test").is_ok());
}

#[tokio::test]
async fn per_stream_state_is_separate_for_streams_of_different_hubs() {
    let per_stream = PerStream::<u8>::default();
    let hubs = [Hub::new(Limits::default()), Hub::new(Limits::default())];
    let producers = hubs.clone().map(|hub| hub.publish(&name(), "test").unwrap());
    let [first_hub_stream, second_hub_stream] = hubs.map(|hub| hub.stream(&name()).unwrap());
    let first = per_stream.get_or_create(&first_hub_stream, || Arc::new(1));
    assert_eq!(*per_stream.get_or_create(&second_hub_stream, || Arc::new(2)), 2);
    assert_eq!(*per_stream.get_or_create(&first_hub_stream, || Arc::new(3)), 1);
    drop((first, producers));
}

#[tokio::test]
async fn b_frames_show_in_tracks_and_status() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let track = track();
    let mut send = |n: i64, pts_ms: i64| {
        producer.send(Frame { pts: MediaTime::from_ms(pts_ms), ..frame(&track, 33 * n, n == 0) });
        producer.stream().tracks().borrow().b_frames
    };
    let constant_offset = (0..30).map(|n| (n, 33 * n + 40));
    let changed_offset = (30..60).map(|n| (n, 33 * n - 34));
    assert!(!constant_offset.chain(changed_offset).any(|(n, pts_ms)| send(n, pts_ms)));
    let groups_of_two = [(60, 2_013), (61, 1_947), (62, 1_980), (63, 2_112), (64, 2_046)];
    assert_eq!(groups_of_two.map(|(n, pts_ms)| send(n, pts_ms)), [false, false, false, false, true]);
    assert!(producer.stream().status().video.unwrap().b_frames);
}

#[tokio::test]
async fn waiting_consumer_wakes_for_a_frame_and_for_the_end() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let mut consumer = producer.stream().consumer();
    let reader = tokio::spawn(async move { (consumer.next().await.is_some(), consumer.next().await.is_none()) });
    tokio::task::yield_now().await;
    producer.send(frame(&track(), 0, true));
    tokio::task::yield_now().await;
    drop(producer);
    assert_eq!(reader.await.unwrap(), (true, true));
}

#[tokio::test]
async fn audio_consumer_ignores_video_and_observes_the_end() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let (video, audio) = (track(), Arc::new(Track { codec: Codec::Opus, video: None, ..(*track()).clone() }));
    producer.send(frame(&video, 0, true));
    let mut consumer = producer.stream().consumer().only(MediaKind::Audio);
    let (waker, wakes) = counting_waker();
    let mut reading = Box::pin(consumer.next());
    let mut poll = || reading.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll().is_pending());
    producer.send(frame(&video, 33, false));
    assert_eq!(wakes.load(Ordering::Relaxed), 0);
    producer.send(frame(&audio, 40, true));
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    let Poll::Ready(Some(item)) = poll() else { panic!("no audio") };
    assert_eq!(item.frame.dts.as_ms(), 40);
    drop(reading);
    drop(producer);
    assert!(consumer.next().await.is_none());
    assert!(consumer.take_lost().is_none());
}

#[tokio::test]
async fn late_audio_packet_does_not_change_the_bitrate_of_a_completed_second() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let (video, audio) = (track(), Arc::new(Track { codec: Codec::Opus, video: None, ..(*track()).clone() }));
    let bitrate = |producer: &super::Producer| producer.stream().status().bitrate_bps;
    for second in 0..5 {
        producer.send(frame(&video, second * 1_000, true));
        let shown = bitrate(&producer);
        if second > 0 {
            producer.send(frame(&audio, second * 1_000 - 40, true));
            assert_eq!(bitrate(&producer), shown, "a late packet changes the bitrate of a completed second");
        }
        producer.send(frame(&video, second * 1_000 + 500, false));
        // Two frames of one byte in the first second, three in each of the others.
        assert_eq!(bitrate(&producer), [0, 16, 24, 24, 24][second as usize], "in second {second}");
    }
    assert_eq!(producer.stream().status().media_ms, 4_500);
}

#[tokio::test]
async fn second_without_frames_has_bitrate_zero() {
    let hub = Hub::new(Limits::default());
    let mut producer = hub.publish(&name(), "test").unwrap();
    let track = track();
    for (ms, bps) in [(0, 0), (1_000, 8), (3_500, 0), (4_000, 8)] {
        producer.send(frame(&track, ms, true));
        assert_eq!(producer.stream().status().bitrate_bps, bps, "at {ms} ms");
    }
}

fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
    struct Count(Arc<AtomicUsize>);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    (Arc::new(Count(Arc::clone(&count))).into(), count)
}
