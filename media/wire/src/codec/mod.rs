//! Codec headers: parses and writes the decoder configuration of each codec.
//!
//! Each codec has one file with `track(config)`, which turns a decoder configuration record into a
//! `Track`. Properties that decoding does not depend on (frame size, reordering) are optional: if
//! they are unreadable they are unknown, but the stream is accepted. The module must not know any
//! protocol.

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
