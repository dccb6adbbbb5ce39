//! RTMP: AMF0, chunks, messages, FLV tags and the server session (RTMP 1.0, Enhanced RTMP v2).
//!
//! ```text
//!   bytes -> handshake -> chunk -> session -> ingest (tag) -> Frame
//!   Frame -> mux (tag, message) -> bytes, the same for every player
//! ```
//!
//! `rml_rtmp` performs the handshake and writes the replies. All parsers of client bytes after the
//! handshake are in this module.

pub mod amf0;
pub mod chunk;
pub mod handshake;
pub mod ingest;
pub mod message;
pub mod mux;
#[cfg(test)]
mod recorded_test;
mod reply;
pub mod session;
pub mod tag;
mod timestamps;

pub use chunk::ChunkReader;
pub use handshake::Handshake;
pub use ingest::Ingest;
pub use message::Message;
pub use session::{Query, Session};
