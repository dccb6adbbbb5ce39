//! For how long the owner of a pulled stream has been silent, as this node observes it.
//!
//! Frames and heartbeats are signs of life of the owner that the source names, whether the source
//! is the owner or another edge. Time during which this node itself did not run is not silence of
//! the owner: each step counts for at most [`MAX_STEP`]. Must not know connections or the registry.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_wire::relay::{Message, Owner};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A pull observes its connection several times per second, and its search about once.
const MAX_STEP: Duration = Duration::from_secs(1);

/// One pulled stream, shared between its pull and the peers that ask about it.
#[derive(Debug)]
pub(super) struct OwnerWatch {
    silence: Mutex<OwnerSilence>,
    moved: Notify,
}

impl OwnerWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { silence: Mutex::new(OwnerSilence::new(now)), moved: Notify::new() }
    }

    /// The silence of the owner, to update it.
    pub(super) fn silence(&self) -> MutexGuard<'_, OwnerSilence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another node has taken over the stream: the pull resolves it again.
    pub(super) fn on_moved(&self) {
        self.moved.notify_one();
    }

    /// Waits for [`OwnerWatch::on_moved`]; a call in the past counts once. Cancel-safe.
    pub(super) async fn wait_moved(&self) {
        self.moved.notified().await;
    }
}

/// How long one owner has been silent.
#[derive(Debug)]
pub(super) struct OwnerSilence {
    /// `None` if the source does not name the owner.
    owner: Option<Owner>,
    /// The current source has named the owner.
    is_named: bool,
    phase: Phase,
    silence: Duration,
    observed_at: Instant,
}

/// What the pull does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Searching,
    /// The source sends retained frames, which may take a while and are no signs of life. This time
    /// is no silence either.
    CatchingUp,
    Live,
}

impl OwnerSilence {
    fn new(now: Instant) -> Self {
        Self { owner: None, is_named: false, phase: Phase::Searching, silence: Duration::ZERO, observed_at: now }
    }

    /// A new source is connected. Until it names the owner, its frames are not signs of life.
    pub(super) fn on_connect(&mut self, now: Instant) {
        self.observe(now);
        self.is_named = false;
        self.phase = Phase::CatchingUp;
    }

    /// The source is lost.
    pub(super) fn on_disconnect(&mut self, now: Instant) {
        self.observe(now);
        self.phase = Phase::Searching;
    }

    /// A message of the source.
    pub(super) fn on_message(&mut self, message: &Message, now: Instant) {
        match message {
            Message::Heartbeat { owner, silent_ms } => {
                self.is_named = true;
                if self.owner.as_ref() != Some(owner) {
                    self.owner = Some(owner.clone());
                }
                self.silence = Duration::from_millis(u64::from(*silent_ms));
                self.observed_at = now;
            }
            Message::Live => {
                self.observe(now);
                self.phase = Phase::Live;
                // This source does not know the owner, and this node no longer observes the last
                // one.
                self.owner.take_if(|_| !self.is_named);
            }
            Message::Frame(_) if self.is_named && self.phase == Phase::Live => {
                self.silence = Duration::ZERO;
                self.observed_at = now;
            }
            _ => {}
        }
    }

    /// Called regularly while the pull runs: time passes without a sign of life.
    pub(super) fn observe(&mut self, now: Instant) {
        self.silence = self.duration(now);
        // A tick carries the time for which it was scheduled, which may be before the last message.
        self.observed_at = self.observed_at.max(now);
    }

    /// The owner that the source names, and for how long it has been silent.
    pub(super) fn owner(&self, now: Instant) -> Option<(&Owner, Duration)> {
        Some((self.owner.as_ref()?, self.duration(now)))
    }

    fn duration(&self, now: Instant) -> Duration {
        if self.phase == Phase::CatchingUp {
            return self.silence;
        }
        self.silence.saturating_add(now.saturating_duration_since(self.observed_at).min(MAX_STEP))
    }
}

#[cfg(test)]
mod tests {
    use headwater_wire::relay::MediaFrame;
    use headwater_wire::segment::Segment;
    use headwater_wire::{MediaKind, MediaTime};

    use super::*;

    fn owner(node: &str) -> Owner {
        Owner { node: node.to_owned(), boot_epoch: 1 }
    }

    fn heartbeat(node: &str, silent_ms: u32) -> Message {
        Message::Heartbeat { owner: owner(node), silent_ms }
    }

    fn frame() -> Message {
        Message::Frame(MediaFrame {
            kind: MediaKind::Audio,
            key: true,
            dts: MediaTime::from_ms(0),
            pts: MediaTime::from_ms(0),
            segment: Segment { number: 1, start: MediaTime::from_ms(0) },
            after_gap: false,
            payload: bytes::Bytes::new(),
        })
    }

    fn live(start: Instant) -> OwnerSilence {
        let mut silence = OwnerSilence::new(start);
        silence.on_connect(start);
        silence.on_message(&heartbeat("a", 0), start);
        silence.on_message(&Message::Live, start);
        silence
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn silence_lasts_since_the_last_frame_or_heartbeat() {
        let start = Instant::now();
        let mut silence = live(start);
        for (message, at_ms, silent_ms) in [(frame(), 700, 0), (heartbeat("a", 300), 1_000, 300)] {
            silence.observe(start + ms(at_ms));
            silence.on_message(&message, start + ms(at_ms));
            assert_eq!(silence.owner(start + ms(at_ms)), Some((&owner("a"), ms(silent_ms))));
        }
        for step in 1..=20 {
            silence.observe(start + ms(1_000 + 250 * step));
        }
        assert_eq!(silence.owner(start + ms(6_100)), Some((&owner("a"), ms(5_400))));
        // A pong only shows that the source lives, which may be another edge.
        silence.on_message(&Message::Pong(1), start + ms(6_100));
        assert_eq!(silence.owner(start + ms(6_100)), Some((&owner("a"), ms(5_400))));
    }

    #[test]
    fn time_during_which_this_node_was_stopped_is_not_silence_of_the_owner() {
        let start = Instant::now();
        let mut silence = live(start);
        assert_eq!(silence.owner(start + ms(60_000)), Some((&owner("a"), MAX_STEP)));
        silence.observe(start + ms(60_000));
        silence.observe(start + ms(60_100));
        assert_eq!(silence.owner(start + ms(60_100)), Some((&owner("a"), MAX_STEP + ms(100))));
    }

    #[test]
    fn source_that_does_not_name_the_owner_makes_no_witness() {
        let start = Instant::now();
        let mut silence = live(start);
        silence.on_disconnect(start + ms(100));
        // While a new source is searched for, the last owner is still the one observed.
        assert_eq!(silence.owner(start + ms(500)), Some((&owner("a"), ms(500))));
        silence.on_connect(start + ms(500));
        silence.on_message(&frame(), start + ms(900));
        assert_eq!(silence.owner(start + ms(900)), Some((&owner("a"), ms(500))), "a retained frame");
        silence.on_message(&Message::Live, start);
        silence.on_message(&frame(), start);
        assert_eq!(silence.owner(start), None);
        silence.on_message(&heartbeat("b", 0), start);
        assert_eq!(silence.owner(start), Some((&owner("b"), ms(0))));
    }
}
