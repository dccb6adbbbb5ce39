//! Renditions: other encodings of a stream, created on demand and shared by all consumers.
//!
//! The hub does not transcode; the assembly of the engine supplies a [`Transcoder`]. A rendition is
//! a stream with one track. It has the name of its source but is not in the directory.

use std::sync::Arc;

use headwater_wire::Codec;

use crate::hub::stream::{Producer, Stream};

/// Creates renditions of streams.
pub trait Transcoder: std::fmt::Debug + Send + Sync {
    /// Spawns a task that transcodes the audio or video of `source` to `codec` and writes it
    /// to `out`. Must not wait. The task ends when the source ends or `out` had no consumer
    /// for a while.
    ///
    /// # Errors
    /// Fails if the source has no suitable track or the pair of codecs is not supported.
    fn start(&self, source: &Arc<Stream>, codec: Codec, out: Producer) -> Result<(), TranscodeError>;
}

/// Why a rendition cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// This engine does not support the pair of codecs.
    #[error("{from} cannot be transcoded to {to}")]
    Unsupported {
        /// The codec that the publisher sends.
        from: &'static str,
        /// The requested codec.
        to: &'static str,
    },
    /// The stream has no track of the required kind.
    #[error("the stream has no track that can be transcoded to {to}")]
    NoTrack {
        /// The requested codec.
        to: &'static str,
    },
}
