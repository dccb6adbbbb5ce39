//! Renditions: another encoding of a stream, made once and only while somebody reads it.
//!
//! Frames come from the hub and go back to the hub as a stream of their own. This room must not know any protocol.
//! `resample` and `opus` compute and do not wait; `audio` waits and does not compute.

mod aac;
mod audio;
mod opus;
mod resample;

pub use audio::Audio;
