//! Detects frame reordering (B-frames) in a video track.
//!
//! The decoder configuration states it, or else the presentation times do: they go back again and
//! again. A presentation time that differs from the decoding time says nothing: some encoders and
//! cameras add a constant offset, or change it now and then. A plain value.

use crate::{Frame, MediaTime};

/// Watches the frames of one video track, in the order in which they are decoded.
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use headwater_wire::reorder::ReorderDetector;
/// use headwater_wire::{Codec, Frame, MediaTime, Track, VideoTrack};
///
/// let video = Some(VideoTrack::default());
/// let (codec, config) = (Codec::H264, Bytes::new());
/// let track = Arc::new(Track { codec, config, codec_string: None, video, audio: None });
/// let detect = |pts_ms: &[i64]| {
///     let mut detector = ReorderDetector::default();
///     (0..).zip(pts_ms).any(|(n, &ms)| {
///         let (dts, pts) = (MediaTime::from_ms(40 * n), MediaTime::from_ms(ms));
///         let (track, payload) = (Arc::clone(&track), Bytes::new());
///         let frame = Frame { track, dts, pts, key: n == 0, payload };
///         detector.on_frame(&frame)
///     })
/// };
/// assert!(!detect(&[80, 120, 160, 200, 240, 280]), "a constant offset");
/// assert!(!detect(&[80, 120, 100, 140, 180, 220]), "an offset that changes once");
/// assert!(detect(&[80, 200, 120, 160, 320, 240, 280]), "two B-frames between references");
/// ```
#[derive(Debug, Default)]
pub struct ReorderDetector {
    last_pts: Option<MediaTime>,
    /// Frames since the presentation time last went back.
    since_step_back: Option<u32>,
}

impl ReorderDetector {
    /// Returns true if this frame shows that the track is reordered.
    pub fn on_frame(&mut self, frame: &Frame) -> bool {
        if let Some(reorder_frames) = frame.track.video.and_then(|v| v.reorder_frames) {
            return reorder_frames > 0;
        }
        let steps_back = self.last_pts.replace(frame.pts).is_some_and(|last| frame.pts < last);
        let since = self.since_step_back.map(|frames| frames.saturating_add(1));
        self.since_step_back = if steps_back { Some(0) } else { since };
        steps_back && since.is_some_and(|frames| frames <= MAX_FRAMES_BETWEEN)
    }
}

/// Frames from one group of B-frames to the next: encoders put at most 16 into a group.
const MAX_FRAMES_BETWEEN: u32 = 18;
