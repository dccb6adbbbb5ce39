//! The common currency of the media path: one encoded video frame or audio packet, and its track.
//!
//! Ingest gateways turn bytes into frames; egress gateways turn frames into bytes. The hub reads
//! only `kind`, `dts` and `key`.

use std::sync::Arc;

use bytes::Bytes;

use crate::MediaTime;

/// Video or audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// H.264, H.265 or AV1.
    Video,
    /// AAC or Opus.
    Audio,
}

/// The codec of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// AV1, by the Alliance for Open Media.
    Av1,
    /// MPEG-4 AAC.
    Aac,
    /// Opus (RFC 6716).
    Opus,
}

impl Codec {
    /// Returns whether this is a video or an audio codec.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::H264 | Self::H265 | Self::Av1 => MediaKind::Video,
            Self::Aac | Self::Opus => MediaKind::Audio,
        }
    }

    /// Returns the display name: "H264", "H265", "AV1", "AAC" or "Opus".
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
            Self::Aac => "AAC",
            Self::Opus => "Opus",
        }
    }
}

/// Maximum length of [`Track::config`], at ingest and between nodes. It is sent again to each
/// viewer and with each key frame; the longest real one, an `hvcC` with many parameter sets, has a
/// few kilobytes.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;
/// Maximum length of [`Frame::payload`]: what fits into an RTMP message with its 24-bit length, and
/// into a relay record, together with the longest tag header. A key frame of this length fills one
/// second of a stream of 134 Mbit/s.
pub const MAX_FRAME_BYTES: usize = 0xff_ffff - 64;

/// The decoder configuration of one video or audio track. Immutable: a publisher that changes its
/// encoder settings starts a new `Track`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Codec of all frames of the track.
    pub codec: Codec,
    /// The decoder configuration record as the publisher sent it: H.264
    /// `AVCDecoderConfigurationRecord`, H.265 `HEVCDecoderConfigurationRecord`, AV1
    /// `AV1CodecConfigurationRecord`, AAC `AudioSpecificConfig`, Opus `OpusHead` (RFC 7845 §5.1).
    pub config: Bytes,
    /// RFC 6381 codec string; `None` if the configuration record is unreadable.
    pub codec_string: Option<String>,
    /// Set if and only if `codec` is video.
    pub video: Option<VideoTrack>,
    /// Set if and only if `codec` is audio.
    pub audio: Option<AudioTrack>,
}

impl Track {
    /// Returns whether this is a video or an audio track.
    pub const fn kind(&self) -> MediaKind {
        self.codec.kind()
    }
}

/// Properties of a video track, from its decoder configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoTrack {
    /// Width in pixels; 0 if unknown.
    pub width: u32,
    /// Height in pixels; 0 if unknown.
    pub height: u32,
    /// Number of frames that a decoder may hold back for reordering (`max_num_reorder_frames`).
    /// Above 0 means B-frames; `None` means unknown.
    pub reorder_frames: Option<u32>,
}

/// Properties of an audio track, from its decoder configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTrack {
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Number of channels.
    pub channels: u32,
    /// Samples per channel in one frame: 1024 or 960 for AAC-LC. 0 for Opus, where each packet's
    /// TOC byte gives its duration.
    pub samples_per_frame: u32,
}

/// One encoded video frame or audio packet. Cheap to clone: the payload is shared.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The track of this frame. A different `Arc` means a new decoder configuration.
    pub track: Arc<Track>,
    /// Decoding time. Never decreases within a track.
    pub dts: MediaTime,
    /// Presentation time. Differs from `dts` with B-frames, and by an offset that some encoders
    /// add.
    pub pts: MediaTime,
    /// True if a decoder can start here (an IDR or equivalent). Always true for audio.
    pub key: bool,
    /// H.264/H.265: NAL units with 4-byte length prefixes. AV1: a temporal unit of OBUs with size
    /// fields. AAC: one raw access unit, no ADTS header. Opus: one packet.
    pub payload: Bytes,
}

impl Frame {
    /// Returns whether this is a video frame or an audio packet.
    pub fn kind(&self) -> MediaKind {
        self.track.kind()
    }
}
