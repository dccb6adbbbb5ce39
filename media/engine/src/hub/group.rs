//! The frames a stream keeps: its last key group, and what its readers have not read yet.
//!
//! A plain value: no lock, no task. Frames are numbered from 0; a reader is just the number it wants next.
//!
//! ```text
//!   front                    last key                  end
//!     | older frames, only while a reader needs them |  key group, always kept  |
//! ```

use std::collections::VecDeque;

use headwater_wire::segment::Segment;
use headwater_wire::{Frame, MediaKind};

/// A frame with the number of the segment it belongs to.
#[derive(Debug, Clone)]
pub struct Item {
    /// The frame.
    pub frame: Frame,
    /// Its segment (`wire::segment::Clock`), the same on every node.
    pub segment: Segment,
}

/// Frames a reader did not get because it was too slow, or because the key group had outgrown its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub frames: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    items: VecDeque<Item>,
    /// Number of the front item.
    front: u64,
    /// Number of the frame a new reader starts at, once there is one.
    last_key: Option<u64>,
    has_video: bool,
    payload_bytes: usize,
    depth_frames: usize,
    depth_bytes: usize,
}

impl Group {
    /// Keeps at most `depth_frames` frames and `depth_bytes` payload bytes.
    pub(super) fn new(depth_frames: usize, depth_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            front: 0,
            last_key: None,
            has_video: false,
            payload_bytes: 0,
            depth_frames,
            depth_bytes,
        }
    }

    /// Number the next frame will get.
    pub(super) fn end(&self) -> u64 {
        self.front + self.items.len() as u64
    }

    /// Where a new reader starts: the last key frame if it is still here, else the next frame to come.
    pub(super) fn start(&self) -> u64 {
        self.last_key.filter(|&k| k >= self.front).unwrap_or_else(|| self.end())
    }

    /// Adds a frame; `slowest` is the lowest number any reader still wants.
    pub(super) fn push(&mut self, item: Item, slowest: Option<u64>) {
        let video = item.frame.kind() == MediaKind::Video;
        self.has_video |= video;
        if item.frame.key && (video || !self.has_video) {
            self.last_key = Some(self.end());
        }
        self.payload_bytes += item.frame.payload.len();
        self.items.push_back(item);
        let wanted = slowest.unwrap_or(u64::MAX).min(self.last_key.unwrap_or(u64::MAX));
        while self.front < wanted && self.items.len() > 1 {
            self.pop();
        }
        while self.items.len() > self.depth_frames || (self.payload_bytes > self.depth_bytes && self.items.len() > 1) {
            self.pop();
        }
        // A ring that once held a long group keeps no more room than it needs now.
        if self.items.capacity() > 4 * self.items.len().max(64) {
            self.items.shrink_to(2 * self.items.len());
        }
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.payload_bytes -= item.frame.payload.len();
            self.front += 1;
        }
    }

    /// The item with this number: `Ok(None)` if it has not come yet.
    ///
    /// # Errors
    /// The number to go on at (a key frame, or the end), if the item is gone.
    pub(super) fn get(&self, number: u64) -> Result<Option<&Item>, u64> {
        match number.checked_sub(self.front) {
            None => Err(self.start()),
            Some(i) => Ok(usize::try_from(i).ok().and_then(|i| self.items.get(i))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use headwater_wire::{Codec, MediaTime, Track, VideoTrack};

    use super::*;

    fn item(key: bool, bytes: usize) -> Item {
        let track = Arc::new(Track {
            codec: Codec::H264,
            config: Bytes::new(),
            codec_string: None,
            video: Some(VideoTrack::default()),
            audio: None,
        });
        let t = MediaTime::ZERO;
        Item {
            frame: Frame { track, dts: t, pts: t, key, payload: vec![0; bytes].into() },
            segment: Segment { number: 0, start: t },
        }
    }

    #[test]
    fn a_key_frame_lets_go_of_the_group_before_it_unless_a_reader_needs_it() {
        let mut group = Group::new(100, 1 << 20);
        group.push(item(true, 1), None);
        group.push(item(false, 1), None);
        group.push(item(true, 1), Some(1));
        assert_eq!((group.front, group.start(), group.end()), (1, 2, 3));
        group.push(item(false, 1), Some(3));
        assert_eq!((group.front, group.payload_bytes), (2, 2));
    }

    #[test]
    fn a_reader_too_far_behind_goes_on_at_the_last_key_frame() {
        let mut group = Group::new(3, 1 << 20);
        for key in [true, false, false, true, false] {
            group.push(item(key, 1), Some(0));
        }
        assert_eq!(group.get(0).unwrap_err(), 3);
        assert!(group.get(4).unwrap().is_some());
        assert!(group.get(5).unwrap().is_none());
    }

    #[test]
    fn a_group_without_end_is_bounded_and_new_readers_then_wait_for_a_key_frame() {
        let mut group = Group::new(1_000, 100);
        group.push(item(true, 60), None);
        for _ in 0..5 {
            group.push(item(false, 30), None);
        }
        assert!(group.payload_bytes <= 100);
        assert_eq!(group.start(), group.end());
    }
}
