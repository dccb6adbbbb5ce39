//! What cannot be put into a fragmented file.

/// Why a track has no place in a fragmented file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmafError {
    /// The decoder configuration record is broken.
    #[error("the {codec} decoder configuration cannot be read: {reason}")]
    Configuration {
        /// `H264` and so on.
        codec: &'static str,
        /// What the reader said.
        reason: String,
    },
    /// There is neither a picture nor a sound track.
    #[error("there is no track to write")]
    NoTrack,
}
