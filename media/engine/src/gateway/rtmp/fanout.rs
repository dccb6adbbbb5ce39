//! One stream to all its RTMP players: packed once, written by one task per group of players.
//!
//! ```text
//!   hub --> packing task --> ring --> group task --> 64 links
//!                               '---> group task --> 64 links
//! ```
//!
//! Lives as long as somebody plays the stream. A frame wakes the packing task and one task per group, not each player. All of
//! them run on the lane of the publisher while that has room: one thread that writes to all players costs less than several
//! which wake each other, and a group is small enough to begin elsewhere, or to move, when there are too many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::link::Link;
use super::ring::{Packer, Packet, Ring};
use crate::hub::{Consumer, Item, Next, Stream};
use crate::lanes::{Home, spawn_shared};

/// All players of one stream.
#[derive(Debug)]
pub(super) struct Fanout {
    /// Where its tasks run.
    home: Home,
    ring: Mutex<Ring>,
    groups: Mutex<Vec<Arc<Group>>>,
}

/// Players that one task writes to.
#[derive(Debug, Default)]
struct Group {
    /// Those who have just come.
    joining: Mutex<Vec<Arc<Link>>>,
    /// Players, joining ones included.
    players: AtomicUsize,
    news: Notify,
}

impl Fanout {
    /// Packs what there is of the stream, and starts to follow it.
    pub(super) fn start(stream: &Arc<Stream>) -> Arc<Self> {
        let mut consumer = stream.consumer();
        let tracks = stream.tracks().borrow().clone();
        let mut packer = Packer::new(tracks.video, tracks.audio);
        let mut ring = Ring::default();
        while let Next::Item(item) = consumer.try_next() {
            packer.push(&item.frame, &mut ring);
        }
        packer.flush(&mut ring);
        let home = stream.home().clone();
        let fanout = Arc::new(Self { home, ring: Mutex::new(ring), groups: Mutex::default() });
        fanout.home.spawn(pack(Arc::downgrade(&fanout), consumer, packer));
        fanout
    }

    /// For a moment only. Whoever holds a link may lock the ring, not the other way round.
    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    /// From now on the link gets new packets.
    pub(super) fn join(self: &Arc<Self>, link: &Arc<Link>) {
        let mut groups = lock(&self.groups);
        let group = match groups.iter().find(|g| g.players.load(Ordering::Relaxed) < GROUP_PLAYERS) {
            Some(group) => Arc::clone(group),
            None => {
                let group = Arc::new(Group::default());
                groups.push(Arc::clone(&group));
                let from = self.ring().end();
                self.begin(Writer {
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

    fn begin(&self, mut writer: Writer) {
        let home = self.home.clone();
        self.home.spawn_heavy(GROUP_PERCENT, async move {
            if unconstrained(writer.run(|| home.must_leave())).await == Left::ForAnotherThread {
                spawn_shared(async move { unconstrained(writer.run(|| false)).await });
            }
        });
    }

    fn tell_groups(&self) {
        lock(&self.groups).iter().for_each(|group| group.news.notify_one());
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.tell_groups();
    }
}

/// Packs the frames of the stream until it ends or nobody plays it.
async fn pack(fanout: Weak<Fanout>, mut consumer: Consumer, mut packer: Packer) {
    let mut batch: Vec<Item> = Vec::new();
    let mut hold = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        let more = tokio::select! {
            biased;
            more = consumer.next_batch(&mut batch) => Some(more),
            () = &mut hold, if packer.holds() => None,
        };
        let Some(fanout) = fanout.upgrade() else { return };
        let held = packer.holds();
        let mut ring = fanout.ring();
        let before = ring.end();
        for item in batch.drain(..) {
            packer.push(&item.frame, &mut ring);
        }
        if packer.is_due() || more != Some(true) {
            packer.flush(&mut ring);
        }
        if more == Some(false) {
            ring.end_here();
        }
        let news = ring.end() > before || ring.is_ended();
        drop(ring);
        if news {
            fanout.tell_groups();
        }
        if more == Some(false) {
            return;
        }
        if packer.holds() && (!held || news) {
            hold.as_mut().reset(Instant::now() + MAX_SOUND_HOLD);
        }
    }
}

/// Writes new packets to the players of one group.
#[derive(Debug)]
struct Writer {
    fanout: Weak<Fanout>,
    group: Arc<Group>,
    players: Vec<Arc<Link>>,
    /// Those that are being written.
    packets: Vec<Packet>,
    /// Number of the packet after them.
    next: u64,
}

/// Why a writer stopped.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// The stream has ended, or nobody plays it.
    ForGood,
    /// Its thread has too much to do.
    ForAnotherThread,
}

impl Writer {
    /// Runs until the stream ends, nobody plays it, or it must go elsewhere.
    async fn run(&mut self, must_leave: impl Fn() -> bool) -> Left {
        loop {
            self.group.news.notified().await;
            let Some(fanout) = self.fanout.upgrade() else { return Left::ForGood };
            if self.write(&fanout) {
                return Left::ForGood;
            }
            if must_leave() {
                return Left::ForAnotherThread;
            }
        }
    }

    /// True if these were the last.
    fn write(&mut self, fanout: &Arc<Fanout>) -> bool {
        let ended = {
            let ring = fanout.ring();
            while self.next < ring.end() {
                // Packets that are gone already are found by each player on its own.
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
            let stays = link.on_packets(fanout, first, &self.packets);
            if ended && stays {
                link.wake();
            }
            stays
        });
        self.group.players.fetch_sub(before - self.players.len(), Ordering::Relaxed);
        self.packets.clear();
        ended
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At 5 microseconds a write, the last player of a group waits 0.3 ms for the first.
const GROUP_PLAYERS: usize = 64;
/// What that makes at 30 pictures a second.
const GROUP_PERCENT: u32 = 2;
/// A picture comes every 42 ms or sooner from any camera; sound that waited longer than that goes alone.
const MAX_SOUND_HOLD: Duration = Duration::from_millis(45);
