//! Transcoding: creates renditions of a stream while they have consumers.
//!
//! Frames come from the hub and return to the hub as a separate stream. This room must not know any
//! protocol. `aac`, `resample` and `opus` compute and do not wait; the task in `audio` waits.

mod aac;
mod audio;
mod opus;
mod resample;

pub use audio::AudioTranscoder;
