//! Another encoding of a stream, made on demand and once, however many ask for it.
//!
//! The hub does not know how to transcode: whoever assembles the engine gives it a [`Transcoder`]. A rendition is a
//! stream like any other, under the same name but outside the directory, and holds one track.

use std::sync::Arc;

use headwater_wire::Codec;

use super::{Producer, Stream};

/// Makes renditions.
pub trait Transcoder: std::fmt::Debug + Send + Sync {
    /// Begins to read `source` and to write its sound or its pictures as `codec` into `out`. Must not wait: it starts
    /// a task of its own, which ends when the source ends or when [`Producer::unwatched`] returns.
    ///
    /// # Errors
    /// If this pair of codecs cannot be done, with a sentence for the publisher.
    fn start(&self, source: &Arc<Stream>, codec: Codec, out: Producer) -> Result<(), TranscodeError>;
}

/// Why there is no such rendition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// Nobody here can make it.
    #[error("{from} cannot be turned into {to} here")]
    Unsupported {
        /// What the publisher sends.
        from: &'static str,
        /// What was asked for.
        to: &'static str,
    },
    /// The stream has no track of that kind.
    #[error("the stream has no track to make {to} from")]
    NoTrack {
        /// What was asked for.
        to: &'static str,
    },
}
