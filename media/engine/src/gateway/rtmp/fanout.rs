//! Sends one stream to all its RTMP players: packed once, written by one task per group of players.
//!
//! ```text
//!   hub --> packing task --> ring --> group task --> 64 links
//!                               '---> group task --> 64 links
//! ```
//!
//! A fan-out exists while the stream has players. A frame wakes the packing task and one task per
//! group, not each player. All of them run on the publisher's worker thread while it has capacity:
//! one thread that writes to all players costs less than several threads that wake each other, and
//! a group is small enough to start on another thread, or to migrate, when there are too many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::link::Link;
use super::ring::{Packer, Packet, Ring};
use super::shared_ring::SharedRing;
use crate::hub::{Consumer, Item, Next, Stream};
use crate::runtime::worker_pool::{WorkerAffinity, spawn_shared};

/// All players of one stream.
#[derive(Debug)]
pub(super) struct Fanout {
    /// Worker thread of the tasks.
    affinity: WorkerAffinity,
    ring: Arc<SharedRing>,
    groups: Mutex<Vec<Arc<PlayerGroup>>>,
}

/// Up to [`MAX_GROUP_PLAYERS`] players that one task writes to.
#[derive(Debug, Default)]
struct PlayerGroup {
    /// Players that the writer has not picked up yet.
    joining: Mutex<Vec<Arc<Link>>>,
    /// Number of players, joining ones included.
    players: AtomicUsize,
    new_packets: Notify,
}

impl Fanout {
    /// Packs the frames that the hub holds, and spawns the packing task.
    ///
    /// With `merge_audio`, audio waits for the next video frame, at most [`MAX_AUDIO_DELAY`].
    pub(super) fn start(stream: &Arc<Stream>, merge_audio: bool) -> Arc<Self> {
        let mut consumer = stream.consumer();
        let tracks = stream.tracks().borrow().clone();
        let mut packer = Packer::new(tracks.video, tracks.audio, merge_audio);
        let mut ring = Ring::default();
        while let Next::Item(item) = consumer.try_next() {
            packer.push(&item.frame, &mut ring);
        }
        packer.flush(&mut ring);
        let affinity = stream.affinity().clone();
        let fanout = Arc::new(Self { affinity, ring: Arc::new(SharedRing::new(ring)), groups: Mutex::default() });
        fanout.affinity.spawn(pack(Arc::downgrade(&fanout), consumer, packer));
        fanout
    }

    /// The packets of the stream.
    pub(super) fn ring(&self) -> &Arc<SharedRing> {
        &self.ring
    }

    /// Adds a player: its link receives new packets from now on.
    pub(super) fn join(self: &Arc<Self>, link: &Arc<Link>) {
        let mut groups = lock(&self.groups);
        let group = match groups.iter().find(|g| g.players.load(Ordering::Relaxed) < MAX_GROUP_PLAYERS) {
            Some(group) => Arc::clone(group),
            None => {
                let group = Arc::new(PlayerGroup::default());
                groups.push(Arc::clone(&group));
                let from = self.ring.lock().end();
                self.spawn_writer(Writer {
                    fanout: Arc::downgrade(self),
                    group: Arc::clone(&group),
                    players: Vec::new(),
                    packets: Vec::new(),
                    next: from,
                });
                group
            }
        };
        drop(groups);
        group.players.fetch_add(1, Ordering::Relaxed);
        lock(&group.joining).push(Arc::clone(link));
    }

    fn spawn_writer(&self, mut writer: Writer) {
        let affinity = self.affinity.clone();
        self.affinity.spawn_cpu_bound(GROUP_CPU_PERCENT, async move {
            if unconstrained(writer.run(|| affinity.should_migrate())).await == StopReason::Migrate {
                spawn_shared(async move { unconstrained(writer.run(|| false)).await });
            }
        });
    }

    fn notify_groups(&self) {
        lock(&self.groups).iter().for_each(|group| group.new_packets.notify_one());
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.notify_groups();
    }
}

/// Packs the frames of the stream until it ends or has no players.
async fn pack(fanout: Weak<Fanout>, mut consumer: Consumer, mut packer: Packer) {
    let mut batch: Vec<Item> = Vec::new();
    let mut audio_timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        let more = tokio::select! {
            biased;
            more = consumer.next_batch(&mut batch) => Some(more),
            () = &mut audio_timer, if packer.has_pending() => None,
        };
        let Some(fanout) = fanout.upgrade() else { return };
        let had_pending = packer.has_pending();
        let mut ring = fanout.ring.lock();
        let before = ring.end();
        for item in batch.drain(..) {
            packer.push(&item.frame, &mut ring);
        }
        if packer.should_flush() || more != Some(true) {
            packer.flush(&mut ring);
        }
        if more == Some(false) {
            ring.set_ended();
        }
        let changed = ring.end() > before || ring.is_ended();
        drop(ring);
        if changed {
            fanout.notify_groups();
        }
        if more == Some(false) {
            return;
        }
        if packer.has_pending() && (!had_pending || changed) {
            audio_timer.as_mut().reset(Instant::now() + MAX_AUDIO_DELAY);
        }
    }
}

/// The task that writes new packets to the players of one group.
#[derive(Debug)]
struct Writer {
    fanout: Weak<Fanout>,
    group: Arc<PlayerGroup>,
    players: Vec<Arc<Link>>,
    /// The packets of the current write.
    packets: Vec<Packet>,
    /// Number of the first packet that is not in `packets`.
    next: u64,
}

/// Why a writer stopped.
#[derive(Debug, PartialEq, Eq)]
enum StopReason {
    /// The stream has ended or has no players.
    Finished,
    /// Its worker thread is overloaded.
    Migrate,
}

impl Writer {
    /// Runs until the stream ends, has no players, or the writer must migrate.
    async fn run(&mut self, should_migrate: impl Fn() -> bool) -> StopReason {
        loop {
            self.group.new_packets.notified().await;
            let Some(fanout) = self.fanout.upgrade() else { return StopReason::Finished };
            if self.write(&fanout) {
                return StopReason::Finished;
            }
            if should_migrate() {
                return StopReason::Migrate;
            }
        }
    }

    /// Writes all new packets to all players; returns true if the stream has ended.
    fn write(&mut self, fanout: &Fanout) -> bool {
        let ended = {
            let ring = fanout.ring.lock();
            while self.next < ring.end() {
                // Each link detects evicted packets by itself.
                if let Ok(Some(packet)) = ring.get(self.next) {
                    self.packets.push(packet.clone());
                }
                self.next += 1;
            }
            ring.is_ended()
        };
        self.players.append(&mut lock(&self.group.joining));
        let first = self.next - self.packets.len() as u64;
        let before = self.players.len();
        self.players.retain(|link| {
            let mut link = link.lock();
            let is_playing = link.on_packets(&fanout.ring, first, &self.packets);
            if ended && is_playing {
                link.wake();
            }
            is_playing
        });
        self.group.players.fetch_sub(before - self.players.len(), Ordering::Relaxed);
        self.packets.clear();
        ended
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At 5 microseconds per write, the last player of a group is 0.3 ms behind the first.
const MAX_GROUP_PLAYERS: usize = 64;
/// CPU share of a full group at 30 frames per second, in percent of a core.
const GROUP_CPU_PERCENT: u32 = 2;
/// Cameras send a frame at least every 42 ms; audio that waited longer leaves without a video
/// frame.
const MAX_AUDIO_DELAY: Duration = Duration::from_millis(45);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_api::StreamName;
    use headwater_wire::codec::{aac, h264};
    use headwater_wire::{Codec, Frame, MediaTime, Track, VideoTrack};
    use tokio::time::sleep;

    use super::*;
    use crate::hub::{Hub, Limits, Producer};

    /// A stream with one key frame at 0 ms, and its fan-out.
    struct TestStream {
        producer: Producer,
        fanout: Arc<Fanout>,
        video: Arc<Track>,
        audio: Arc<Track>,
    }

    impl TestStream {
        fn start(merge_audio: bool) -> Self {
            let avc =
                h264::DecoderConfig::from_parameter_sets(vec![0x67, 66, 0, 31].into(), vec![0x68].into()).unwrap();
            let video = Arc::new(Track {
                codec: Codec::H264,
                config: avc.encode(),
                codec_string: None,
                video: Some(VideoTrack::default()),
                audio: None,
            });
            let audio = Arc::new(aac::track(Bytes::from_static(&[0x12, 0x10])).unwrap());
            let mut producer =
                Hub::new(Limits::default()).publish(&StreamName::new("live", "demo").unwrap(), "test").unwrap();
            producer.announce(&video);
            producer.announce(&audio);
            producer.send(frame(&video, 0, true));
            let fanout = Fanout::start(producer.stream(), merge_audio);
            Self { producer, fanout, video, audio }
        }

        fn send_video(&mut self, ms: i64) {
            self.producer.send(frame(&self.video, ms, false));
        }

        fn send_audio(&mut self, ms: i64) {
            self.producer.send(frame(&self.audio, ms, true));
        }

        /// Number of packets pushed so far.
        fn packets(&self) -> u64 {
            self.fanout.ring.lock().end()
        }

        /// Waits until `count` packets have been pushed, and returns how long that took.
        async fn wait_packets(&self, count: u64) -> Duration {
            let start = Instant::now();
            while self.packets() < count {
                assert!(start.elapsed() < Duration::from_secs(1), "{} of {count} packets", self.packets());
                sleep(Duration::from_millis(1)).await;
            }
            start.elapsed()
        }
    }

    fn frame(track: &Arc<Track>, ms: i64, key: bool) -> Frame {
        let t = MediaTime::from_ms(ms);
        Frame { track: Arc::clone(track), dts: t, pts: t, key, payload: Bytes::from_static(b"payload") }
    }

    #[tokio::test(start_paused = true)]
    async fn merged_audio_leaves_in_the_packet_of_the_next_video_frame() {
        let mut stream = TestStream::start(true);
        stream.send_audio(10);
        sleep(MAX_AUDIO_DELAY - Duration::from_millis(5)).await;
        assert_eq!(stream.packets(), 1, "the audio waits");
        stream.send_video(33);
        assert!(stream.wait_packets(2).await <= Duration::from_millis(1));
        sleep(2 * MAX_AUDIO_DELAY).await;
        assert_eq!(stream.packets(), 2, "audio and video are one packet");
    }

    #[tokio::test(start_paused = true)]
    async fn merged_audio_without_a_video_frame_leaves_after_45_ms() {
        let mut stream = TestStream::start(true);
        stream.send_audio(10);
        let waited = stream.wait_packets(2).await;
        assert!((Duration::from_millis(45)..=Duration::from_millis(47)).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn unmerged_audio_leaves_at_once_in_its_own_packet() {
        let mut stream = TestStream::start(false);
        for (ms, count) in [(10, 2), (31, 3)] {
            stream.send_audio(ms);
            assert!(stream.wait_packets(count).await <= Duration::from_millis(1));
        }
        stream.send_video(33);
        assert!(stream.wait_packets(4).await <= Duration::from_millis(1));
        sleep(2 * MAX_AUDIO_DELAY).await;
        assert_eq!(stream.packets(), 4);
    }
}
