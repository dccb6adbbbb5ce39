//! The track ids of the file: initialization segments declare them, and parts refer to them.
//!
//! Must not know samples.

use crate::{MediaKind, Track};

/// Track id of the video track.
pub const VIDEO_TRACK: u32 = 1;
/// Track id of the audio track.
pub const AUDIO_TRACK: u32 = 2;

/// Returns the id of a track in the file.
pub(super) const fn track_id(track: &Track) -> u32 {
    match track.kind() {
        MediaKind::Video => VIDEO_TRACK,
        MediaKind::Audio => AUDIO_TRACK,
    }
}
