//! Codec headers: what a decoder must know before the first frame, read from and written to bytes.
//!
//! Each codec has one file with `track(config)`, which turns a decoder configuration record into a `Track`. What a
//! header says only for people or for comfort (size, reordering) is optional: a header that is odd in such a place is
//! "unknown", never a reason to refuse a stream. This room must not know any protocol.

pub mod aac;
pub mod annexb;
pub mod av1;
mod bits;
mod error;
pub mod h264;
pub mod h265;
pub mod opus;

pub use error::CodecError;

#[cfg(test)]
mod robustness_test;
