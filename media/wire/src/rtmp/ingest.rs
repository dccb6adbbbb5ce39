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
pub enum IngestOutput {
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
    timestamps: TimestampUnwrapper,
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
    pub fn on_message(&mut self, message: Message) -> Result<Option<IngestOutput>, IngestError> {
        let tag = match message.kind {
            kind::VIDEO => tag::parse_video(message.payload)?,
            kind::AUDIO => tag::parse_audio(message.payload)?,
            _ => return Ok(None),
        };
        match tag {
            Tag::Ignored => Ok(None),
            Tag::Config(codec, record) => self.on_config(codec, record),
            Tag::Frame { codec, key, composition_ms, data } => {
                let dts_ms = self.timestamps.unwrap_ms(message.timestamp_ms);
                Ok(match codec {
                    Codec::Aac | Codec::Opus => self.on_audio(codec, dts_ms, data),
                    _ => self.on_video(codec, key, dts_ms, composition_ms, data),
                }
                .map(IngestOutput::Frame))
            }
        }
    }

    fn on_config(&mut self, codec: Codec, record: Bytes) -> Result<Option<IngestOutput>, IngestError> {
        let current = match codec {
            Codec::Aac | Codec::Opus => self.audio.as_ref().map(|a| (&a.track, &a.record)),
            _ => self.video.as_ref().map(|v| (&v.track, &v.record)),
        };
        // Encoders repeat the header; only a changed one is reported.
        if current.is_some_and(|(track, seen)| track.codec == codec && *seen == record) {
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
            let last_dts = self.audio.as_ref().map_or(BEFORE_FIRST_DTS, |a| a.last_dts);
            self.audio = Some(AudioState { track: Arc::clone(&track), record, anchor: None, samples: 0, last_dts });
        } else {
            let last_dts = self.video.as_ref().map_or(BEFORE_FIRST_DTS, |v| v.last_dts);
            let length_size = match codec {
                Codec::H264 => record.get(4).map_or(4, |b| (b & 3) + 1),
                _ => 4,
            };
            self.video = Some(VideoState { track: Arc::clone(&track), length_size, record, last_dts });
        }
        Ok(Some(IngestOutput::Track(track)))
    }

    fn on_video(&mut self, codec: Codec, key: bool, dts_ms: i64, composition_ms: i32, data: Bytes) -> Option<Frame> {
        // Without a decoder configuration, no decoder could use the frame.
        let video = self.video.as_mut().filter(|v| v.track.codec == codec)?;
        let dts = MediaTime::from_ms(dts_ms).max(video.last_dts);
        video.last_dts = dts;
        let pts = dts + MediaTime::from_ms(i64::from(composition_ms));
        let payload = if video.length_size == 4 { data } else { h264::widen_lengths(&data, video.length_size) };
        Some(Frame { track: Arc::clone(&video.track), dts, pts, key, payload })
    }

    fn on_audio(&mut self, codec: Codec, dts_ms: i64, payload: Bytes) -> Option<Frame> {
        let audio = self.audio.as_mut().filter(|a| a.track.codec == codec)?;
        let format = audio.track.audio?;
        let reported = MediaTime::from_ms(dts_ms);
        let computed = audio.anchor.map(|anchor| anchor + MediaTime::from_ticks(audio.samples, format.sample_rate_hz));
        let dts = match computed {
            Some(computed) if within(computed, reported, MAX_AUDIO_DRIFT) => computed,
            _ => {
                let anchor = reported.max(audio.last_dts);
                audio.anchor = Some(anchor);
                audio.samples = 0;
                anchor
            }
        };
        audio.samples += match codec {
            Codec::Opus => i64::from(codec::opus::packet_samples(&payload).unwrap_or(OPUS_PACKET_SAMPLES)),
            _ => i64::from(format.samples_per_frame),
        };
        audio.last_dts = dts;
        Some(Frame { track: Arc::clone(&audio.track), dts, pts: dts, key: true, payload })
    }
}

/// Converts RTMP timestamps to milliseconds that neither wrap nor restart.
#[derive(Debug, Default)]
struct TimestampUnwrapper {
    last: Option<u32>,
    now_ms: i64,
}

impl TimestampUnwrapper {
    fn unwrap_ms(&mut self, timestamp_ms: u32) -> i64 {
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
const BEFORE_FIRST_DTS: MediaTime = MediaTime::from_flicks(i64::MIN);

#[cfg(test)]
#[path = "ingest_test.rs"]
mod tests;
