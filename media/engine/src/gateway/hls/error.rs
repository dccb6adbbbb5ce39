//! Errors of requests for playlists and segments.

use headwater_api::StreamName;

use crate::hub::FindError;

/// Why a playlist or a segment is not available. The HTTP server maps it to a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HlsError {
    /// The stream is not being published, and did not end a moment ago.
    #[error("{0} is not being published")]
    NotPublished(StreamName),
    /// The stream may be live, but could not be fetched from the node that has it.
    #[error("{name} could not be fetched: {error}")]
    Unavailable {
        /// The stream.
        name: StreamName,
        /// The reason.
        error: FindError,
    },
    /// The stream is live, but the playlist or segment was not available in time.
    #[error("the playlist or segment was not available in time; try again")]
    NotYet,
    /// A blocking request for a segment or part too far in the future.
    #[error("_HLS_msn or _HLS_part is too far ahead of the stream")]
    TooFarAhead,
    /// The segment has expired or was never announced.
    #[error("the segment does not exist or has expired")]
    NoResource,
}

impl HlsError {
    /// Converts the hub's error for the stream `name`.
    pub(super) fn from_find_error(error: FindError, name: &StreamName) -> Self {
        match error {
            FindError::NotPublished => Self::NotPublished(name.clone()),
            FindError::AtCapacity
            | FindError::Unreachable
            | FindError::RegistryUnreachable
            | FindError::TooManySearches => Self::Unavailable { name: name.clone(), error },
        }
    }
}
