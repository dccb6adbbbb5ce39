//! The reading end of a stream.
//!
//! Frames come out of the GOP buffer of the stream, from a key frame on. Takes the stream's lock
//! once per item, never across a wait. Must not know who writes.

use std::sync::Arc;

use headwater_wire::{MediaKind, MediaTime};

use crate::hub::gop_buffer::{GopBuffer, Item, LostFrames};
use crate::hub::stream::stream::{Stream, StreamState};

/// The reading end of a stream. Starts at a key frame and, if it was too slow, resumes at one.
#[derive(Debug)]
pub struct Consumer {
    stream: Arc<Stream>,
    slot: usize,
    /// The only kind that is returned; all frames if not set.
    kind: Option<MediaKind>,
    wait_key: bool,
    lost: u64,
}

impl Stream {
    /// Creates a consumer that starts at the last key frame.
    pub fn consumer(self: &Arc<Self>) -> Consumer {
        self.consumer_at(GopBuffer::start)
    }

    /// Creates a consumer that starts at the oldest completely kept segment.
    pub fn consumer_with_history(self: &Arc<Self>) -> Consumer {
        self.consumer_at(GopBuffer::history_start)
    }

    fn consumer_at(self: &Arc<Self>, start: impl FnOnce(&GopBuffer) -> u64) -> Consumer {
        let mut shared = self.lock();
        let start = start(&shared.buffer);
        let slot = shared.cursors.iter().position(Option::is_none).unwrap_or_else(|| {
            shared.cursors.push(None);
            shared.cursors.len() - 1
        });
        shared.cursors[slot] = Some(start);
        drop(shared);
        Consumer { stream: Arc::clone(self), slot, kind: None, wait_key: true, lost: 0 }
    }
}

impl Consumer {
    /// Returns the stream of this consumer.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Restricts the consumer to audio or to video: it returns and wakes for this kind only.
    #[must_use]
    pub fn only(mut self, kind: MediaKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Returns the next item that a decoder can use, or `None` once the stream has ended and
    /// everything was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Item> {
        let stream = Arc::clone(&self.stream);
        loop {
            // Register for the notification before reading, so that an update in between
            // is not missed.
            let updated = stream.update_notify(self.kind).notified();
            match self.try_next() {
                Next::Item(item) => return Some(item),
                Next::Ended => return None,
                Next::Empty => updated.await,
            }
        }
    }

    /// Appends all available items to `out`; waits until there is at least one. Returns false once
    /// the stream has ended and everything was read. Cancel-safe.
    pub async fn next_batch(&mut self, out: &mut Vec<Item>) -> bool {
        match self.next().await {
            None => false,
            Some(item) => {
                out.push(item);
                while let Next::Item(item) = self.try_next() {
                    out.push(item);
                }
                true
            }
        }
    }

    /// Returns the next item if one is available. Does not wait.
    pub fn try_next(&mut self) -> Next {
        let mut guard = self.stream.lock();
        let shared = &mut *guard;
        let Some(cursor) = shared.cursors[self.slot].as_mut() else { return Next::Ended };
        loop {
            match shared.buffer.get(*cursor) {
                Ok(Some(item)) => {
                    *cursor += 1;
                    let video_key = item.frame.key && item.frame.kind() == MediaKind::Video;
                    // Audio is decodable at any packet, but after a loss it waits for the
                    // video key frame.
                    if self.wait_key && !(video_key || (item.frame.key && !self.stream.has_video())) {
                        self.lost += 1;
                        continue;
                    }
                    self.wait_key = false;
                    if self.kind.is_none_or(|kind| item.frame.kind() == kind) {
                        return Next::Item(item.clone());
                    }
                }
                Ok(None) if shared.ended => return Next::Ended,
                Ok(None) => return Next::Empty,
                Err(resume_at) => {
                    self.lost += resume_at.saturating_sub(*cursor);
                    *cursor = resume_at;
                    self.wait_key = true;
                }
            }
        }
    }

    /// Skips to the last key frame if the next frame is older than the newest by more than `limit`.
    pub fn skip_if_behind(&mut self, limit: MediaTime) {
        let mut shared = self.stream.lock();
        let StreamState { buffer, cursors, .. } = &mut *shared;
        let Some(cursor) = cursors[self.slot].as_mut() else { return };
        if buffer.is_behind(*cursor, limit) {
            self.lost += buffer.start() - *cursor;
            *cursor = buffer.start();
            self.wait_key = true;
        }
    }

    /// Returns the frames missed since the last call, or `None` if there are none.
    pub fn take_lost(&mut self) -> Option<LostFrames> {
        match std::mem::take(&mut self.lost) {
            0 => None,
            frames => Some(LostFrames { frames }),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stream.lock().cursors[self.slot] = None;
    }
}

/// The result of [`Consumer::try_next`].
#[derive(Debug)]
pub enum Next {
    /// The next item.
    Item(Item),
    /// No item is available yet.
    Empty,
    /// The stream has ended and everything was read.
    Ended,
}
