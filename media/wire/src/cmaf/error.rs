//! Errors of the CMAF writer.

/// A track that cannot be written to a fragmented MP4 file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmafError {
    /// The decoder configuration record is malformed.
    #[error("the {codec} decoder configuration cannot be read: {reason}")]
    Configuration {
        /// Codec name, such as `H264`.
        codec: &'static str,
        /// The message of the parser.
        reason: String,
    },
    /// There is neither a video nor an audio track.
    #[error("there is no track to write")]
    NoTrack,
}
