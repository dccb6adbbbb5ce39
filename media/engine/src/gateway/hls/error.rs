//! Why a request for a playlist or a segment has no answer.

use headwater_api::StreamName;

use crate::hub::Missing;

/// Why there is no answer. The HTTP side turns it into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HlsError {
    /// Nobody publishes this stream, and nobody did a moment ago.
    #[error("nobody is publishing {0} right now")]
    NoStream(StreamName),
    /// The stream is live, and the node that has it has no place for one more.
    #[error("the node that has {0} serves as many others as it may; try again")]
    Full(StreamName),
    /// The stream is live, but what was asked for did not come in time.
    #[error("what was asked for did not come in time; try again")]
    NotYet,
    /// A blocking request for something much too far in the future.
    #[error("_HLS_msn or _HLS_part is too far ahead of the stream")]
    TooFarAhead,
    /// The segment is too old, or was never announced.
    #[error("there is no such segment (any more)")]
    NoResource,
}

impl HlsError {
    /// As the hub says it of `name`.
    pub(super) fn missing(missing: Missing, name: &StreamName) -> Self {
        match missing {
            Missing::Unknown => Self::NoStream(name.clone()),
            Missing::Full => Self::Full(name.clone()),
        }
    }
}
