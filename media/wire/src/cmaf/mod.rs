//! CMAF: turns frames into initialization segments and parts (ISO/IEC 23000-19, ISO/IEC 14496-12).
//!
//! Video and audio are multiplexed into one file, as track 1 and track 2. A part is one `moof` with
//! its `mdat`; a segment is the concatenation of its parts. The module knows nothing of playlists,
//! names or viewers.

mod error;
mod init;
mod open_segment;
mod output;
mod packager;
#[cfg(test)]
mod packager_test;
mod part;
mod sample_entry;
mod timeline;
mod track_id;

pub use error::CmafError;
pub use init::{Init, timescale};
pub use output::{Output, Part};
pub use packager::Packager;
pub use part::{Run, Sample, encode_part};
pub use track_id::{AUDIO_TRACK, VIDEO_TRACK};
