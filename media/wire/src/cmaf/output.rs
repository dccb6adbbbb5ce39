//! What the packager produces: the beginning and the end of segments, and their parts. Must not
//! know how they are made or listed.

use std::sync::Arc;

use bytes::Bytes;

use super::CmafError;
use super::init::Init;
use crate::MediaTime;
use crate::segment::Segment;

/// The output of a [`Packager`](super::Packager). For each segment: `Begin`, then at least one `Part`, then `End`.
#[derive(Debug, Clone)]
pub enum Output {
    /// A segment begins.
    Begin {
        /// Number and start time of the segment.
        segment: Segment,
        /// The initialization segment that it requires.
        init: Arc<Init>,
        /// True if a decoder must be reset: the configuration changed, timestamps jumped, or frames
        /// were lost.
        discontinuity: bool,
    },
    /// A part of the open segment.
    Part(Part),
    /// The open segment has ended.
    End {
        /// Duration of the segment. More than the sum of its parts if the stream paused.
        duration: MediaTime,
    },
    /// The tracks could not be described, so the segment is omitted or contains only video.
    Refused(CmafError),
    /// The open segment exceeds a limit and ends here.
    TooLong,
}

/// A part of a segment (a CMAF chunk).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Index in its segment, from 0.
    pub index: u32,
    /// Duration up to the start of the next part; at most the part target.
    pub duration: MediaTime,
    /// True if it contains a frame at which a decoder can start.
    pub independent: bool,
    /// The boxes `moof` and `mdat`.
    pub bytes: Bytes,
}
