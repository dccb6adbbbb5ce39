//! Converts the audio and video messages of one publisher to frames on one timeline.
//!
//! RTMP timestamps are milliseconds modulo 2^32. On the timeline, the first message is at time
//! zero, a wrap is invisible, and a timestamp that restarts continues from the previous time. Audio
//! times are computed from sample counts: a packet of 1024 samples at 44.1 kHz lasts 23.2 ms, not
//! 23 or 24, and outputs that count samples would otherwise stutter.

use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, kind};
use super::tag::{self, Tag, TagError};
use crate::codec::{self, CodecError, h264};
use crate::{Codec, Frame, MediaTime, Track};

/// The content of one audio or video message.
#[derive(Debug, Clone)]
pub enum Media {
    /// A new or changed decoder configuration.
    Track(Arc<Track>),
    /// A video frame or an audio packet.
    Frame(Frame),
}

/// An unusable message. The stream can continue without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The FLV tag is invalid or unsupported.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The decoder configuration is invalid.
    #[error("{} header cannot be used", codec.name())]
    Config {
        /// Codec of the configuration.
        codec: Codec,
        /// Error of the configuration parser.
        source: CodecError,
    },
}

/// The state of one publisher: its tracks and its timeline.
#[derive(Debug, Default)]
pub struct Ingest {
    clock: Clock,
    video: Option<VideoState>,
    audio: Option<AudioState>,
}

#[derive(Debug)]
struct VideoState {
    track: Arc<Track>,
    /// Size of NAL unit length prefixes in bytes; less than 4 only for rare H.264 encoders.
    length_size: u8,
    record: Bytes,
    last_dts: MediaTime,
}

#[derive(Debug)]
struct AudioState {
    track: Arc<Track>,
    record: Bytes,
    /// Time from which samples are counted, and their number since then.
    anchor: Option<MediaTime>,
    samples: i64,
    last_dts: MediaTime,
}

impl Ingest {
    /// Processes one message. Returns `None` if it contains no frame and no new configuration.
    ///
    /// # Errors
    /// See [`IngestError`].
    pub fn on_message(&mut self, message: Message) -> Result<Option<Media>, IngestError> {
        let tag = match message.kind {
            kind::VIDEO => tag::parse_video(message.payload)?,
            kind::AUDIO => tag::parse_audio(message.payload)?,
            _ => return Ok(None),
        };
        match tag {
            Tag::Nothing => Ok(None),
            Tag::Config(codec, record) => self.on_config(codec, record),
            Tag::Frame { codec, key, composition_ms, data } => {
                let dts_ms = self.clock.on_timestamp(message.timestamp_ms);
                Ok(match codec {
                    Codec::Aac | Codec::Opus => self.on_sound(codec, dts_ms, data),
                    _ => self.on_picture(codec, key, dts_ms, composition_ms, data),
                }
                .map(Media::Frame))
            }
        }
    }

    fn on_config(&mut self, codec: Codec, record: Bytes) -> Result<Option<Media>, IngestError> {
        let known = match codec {
            Codec::Aac | Codec::Opus => self.audio.as_ref().map(|a| (&a.track, &a.record)),
            _ => self.video.as_ref().map(|v| (&v.track, &v.record)),
        };
        // Encoders repeat the header; only a changed one is reported.
        if known.is_some_and(|(track, seen)| track.codec == codec && *seen == record) {
            return Ok(None);
        }
        let parse = match codec {
            Codec::H264 => codec::h264::track,
            Codec::H265 => codec::h265::track,
            Codec::Av1 => codec::av1::track,
            Codec::Aac => codec::aac::track,
            Codec::Opus => codec::opus::track,
        };
        let track = Arc::new(parse(record.clone()).map_err(|source| IngestError::Config { codec, source })?);
        if matches!(codec, Codec::Aac | Codec::Opus) {
            let last_dts = self.audio.as_ref().map_or(BEGINNING, |a| a.last_dts);
            self.audio = Some(AudioState { track: Arc::clone(&track), record, anchor: None, samples: 0, last_dts });
        } else {
            let last_dts = self.video.as_ref().map_or(BEGINNING, |v| v.last_dts);
            let length_size = match codec {
                Codec::H264 => record.get(4).map_or(4, |b| (b & 3) + 1),
                _ => 4,
            };
            self.video = Some(VideoState { track: Arc::clone(&track), length_size, record, last_dts });
        }
        Ok(Some(Media::Track(track)))
    }

    fn on_picture(&mut self, codec: Codec, key: bool, dts_ms: i64, composition_ms: i32, data: Bytes) -> Option<Frame> {
        // Without a decoder configuration, no decoder could use the frame.
        let video = self.video.as_mut().filter(|v| v.track.codec == codec)?;
        let dts = MediaTime::from_ms(dts_ms).max(video.last_dts);
        video.last_dts = dts;
        let pts = dts + MediaTime::from_ms(i64::from(composition_ms));
        let payload = if video.length_size == 4 { data } else { h264::widen_lengths(&data, video.length_size) };
        Some(Frame { track: Arc::clone(&video.track), dts, pts, key, payload })
    }

    fn on_sound(&mut self, codec: Codec, dts_ms: i64, payload: Bytes) -> Option<Frame> {
        let audio = self.audio.as_mut().filter(|a| a.track.codec == codec)?;
        let about = audio.track.audio?;
        let said = MediaTime::from_ms(dts_ms);
        let counted = audio.anchor.map(|anchor| anchor + MediaTime::from_ticks(audio.samples, about.sample_rate_hz));
        let dts = match counted {
            Some(counted) if within(counted, said, MAX_AUDIO_DRIFT) => counted,
            _ => {
                let anchor = said.max(audio.last_dts);
                audio.anchor = Some(anchor);
                audio.samples = 0;
                anchor
            }
        };
        audio.samples += match codec {
            Codec::Opus => i64::from(codec::opus::packet_samples(&payload).unwrap_or(OPUS_PACKET_SAMPLES)),
            _ => i64::from(about.samples_per_frame),
        };
        audio.last_dts = dts;
        Some(Frame { track: Arc::clone(&audio.track), dts, pts: dts, key: true, payload })
    }
}

/// Converts RTMP timestamps to milliseconds that neither wrap nor restart.
#[derive(Debug, Default)]
struct Clock {
    last: Option<u32>,
    now_ms: i64,
}

impl Clock {
    fn on_timestamp(&mut self, timestamp_ms: u32) -> i64 {
        let step = match self.last {
            None => 0,
            Some(last) => i64::from(timestamp_ms.wrapping_sub(last).cast_signed()),
        };
        self.last = Some(timestamp_ms);
        // Audio and video are interleaved within this limit; a larger step back means that the
        // publisher's timestamps restarted.
        if step >= -MAX_STEP_BACK_MS {
            self.now_ms += step;
        }
        self.now_ms
    }
}

fn within(a: MediaTime, b: MediaTime, limit: MediaTime) -> bool {
    a - b <= limit && b - a <= limit
}

/// Maximum difference between a timestamp and the sample count. Beyond it, samples were lost or
/// inserted, and counting restarts at the timestamp.
const MAX_AUDIO_DRIFT: MediaTime = MediaTime::from_ms(50);
const MAX_STEP_BACK_MS: i64 = 1_000;
/// 20 ms, the packet duration of nearly every encoder.
const OPUS_PACKET_SAMPLES: u32 = 960;
/// Earlier than any time that a timestamp can represent.
const BEGINNING: MediaTime = MediaTime::from_flicks(i64::MIN);

#[cfg(test)]
#[path = "ingest_test.rs"]
mod tests;
