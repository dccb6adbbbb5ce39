//! The one type that crosses the middle: an encoded picture or audio packet, with the track it belongs to.
//!
//! Gateways turn bytes into frames on the left and frames into bytes on the right; the hub only looks at
//! `kind`, `dts` and `key`.

use std::sync::Arc;

use bytes::Bytes;

use crate::MediaTime;

/// Picture or sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// How a track is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// AOMedia AV1.
    Av1,
    /// MPEG-4 AAC.
    Aac,
    /// RFC 6716.
    Opus,
}

impl Codec {
    /// Picture or sound.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::H264 | Self::H265 | Self::Av1 => MediaKind::Video,
            Self::Aac | Self::Opus => MediaKind::Audio,
        }
    }

    /// Its name for people: "H264", "H265", "AV1", "AAC", "Opus".
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

/// What a decoder must know before the first frame. Replaced as a whole when the publisher changes its encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// How it is encoded.
    pub codec: Codec,
    /// The decoder configuration record, unchanged from the publisher: H.264 `AVCDecoderConfigurationRecord`,
    /// H.265 `HEVCDecoderConfigurationRecord`, AV1 `AV1CodecConfigurationRecord`, AAC `AudioSpecificConfig`,
    /// Opus `OpusHead` (RFC 7845 §5.1).
    pub config: Bytes,
    /// RFC 6381 codec string, if the header could be read.
    pub codec_string: Option<String>,
    /// Set if and only if `codec` is video.
    pub video: Option<VideoTrack>,
    /// Set if and only if `codec` is audio.
    pub audio: Option<AudioTrack>,
}

impl Track {
    /// Picture or sound.
    pub const fn kind(&self) -> MediaKind {
        self.codec.kind()
    }
}

/// What the video header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoTrack {
    /// Pixels; 0 if unknown.
    pub width: u32,
    /// Pixels; 0 if unknown.
    pub height: u32,
    /// Pictures that may be held back for reordering (`max_num_reorder_frames`), if the header says so. Above 0
    /// means B-frames.
    pub reorder_frames: Option<u32>,
}

/// What the audio header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTrack {
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Channels.
    pub channels: u32,
    /// Samples per channel in one frame: 1024 or 960 for AAC-LC; for Opus see the packet's TOC (0 here).
    pub samples_per_frame: u32,
}

/// One encoded picture or audio packet. Cheap to clone: the payload is shared.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The track it belongs to. A new `Arc` means a new decoder configuration.
    pub track: Arc<Track>,
    /// When it must be decoded. Never decreases within a track.
    pub dts: MediaTime,
    /// When it must be shown. Differs from `dts` only with B-frames.
    pub pts: MediaTime,
    /// True if a decoder may start here (an IDR or equivalent). Always true for audio.
    pub key: bool,
    /// H.264/H.265: NAL units with 4-byte length prefix. AV1: a temporal unit of OBUs with size fields.
    /// AAC: one raw access unit, no ADTS header. Opus: one packet.
    pub payload: Bytes,
}

impl Frame {
    /// Picture or sound.
    pub fn kind(&self) -> MediaKind {
        self.track.kind()
    }
}
