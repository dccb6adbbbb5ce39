//! Converts the audio and video messages of one publisher to frames on one timeline.
//!
//! Timestamps become times without wraps, jumps and restarts (`timestamps`). Audio times are
//! computed from sample counts: a packet of 1024 samples at 44.1 kHz lasts 23.2 ms, not 23 or 24,
//! and outputs that count samples would otherwise stutter. What some encoders send and no player
//! expects is corrected here: empty NAL units, ADTS headers, and composition times in a stream
//! without B-frames.

use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, kind};
use super::tag::{self, Tag, TagError};
use super::timestamps::{MAX_STEP_BACK_MS, MAX_STEP_MS, TimestampUnwrapper};
use crate::codec::{self, CodecError, aac, h264};
use crate::{Codec, Frame, MAX_CONFIG_BYTES, MAX_FRAME_BYTES, MediaKind, MediaTime, Track};

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
    /// The decoder configuration exceeds the maximum length.
    #[error("{} header of {bytes} bytes is refused: at most {MAX_CONFIG_BYTES} are allowed", codec.name())]
    ConfigTooLong {
        /// Codec of the configuration.
        codec: Codec,
        /// Its length.
        bytes: usize,
    },
    /// A frame exceeds the maximum length.
    #[error("{} frame of {bytes} bytes is dropped: at most {MAX_FRAME_BYTES} are allowed", codec.name())]
    FrameTooLong {
        /// Codec of the frame.
        codec: Codec,
        /// Its length.
        bytes: usize,
    },
    /// Frames arrive without a decoder configuration. Reported once per publisher and kind.
    #[error(
        "{} arrives without a decoder configuration (sequence header) and cannot be played: restart the encoder",
        codec.name()
    )]
    NoConfig {
        /// Codec of the frames.
        codec: Codec,
    },
    /// A message has several ADTS frames or access units, or a part of one.
    #[error("AAC with ADTS headers is supported with one access unit per message only")]
    Adts,
}

/// The state of one publisher: its tracks and its timeline.
#[derive(Debug, Default)]
pub struct Ingest {
    timestamps: TimestampUnwrapper,
    video: Option<VideoState>,
    audio: Option<AudioState>,
    /// Frames dropped because no decoder configuration preceded them, indexed by [`MediaKind`].
    without_config: [u32; 2],
}

#[derive(Debug)]
struct VideoState {
    track: Arc<Track>,
    /// Size of NAL unit length prefixes in bytes; less than 4 only for rare H.264 encoders.
    length_size: u8,
    record: Bytes,
    last_dts: MediaTime,
    /// Frames were dropped: the next one must be a key frame.
    wait_key: bool,
}

#[derive(Debug)]
struct AudioState {
    track: Arc<Track>,
    record: Bytes,
    /// True if the configuration was derived from ADTS headers.
    from_adts: bool,
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
                let dts_ms = self.timestamps.unwrap_ms(codec.kind(), message.timestamp_ms);
                let frame = match codec.kind() {
                    MediaKind::Audio => self.on_audio(codec, dts_ms, data)?,
                    MediaKind::Video => self.on_video(codec, key, dts_ms, composition_ms, data)?,
                };
                Ok(frame.map(IngestOutput::Frame))
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
        if record.len() > MAX_CONFIG_BYTES {
            return Err(IngestError::ConfigTooLong { codec, bytes: record.len() });
        }
        let parse = match codec {
            Codec::H264 => codec::h264::track,
            Codec::H265 => codec::h265::track,
            Codec::Av1 => codec::av1::track,
            Codec::Aac => codec::aac::track,
            Codec::Opus => codec::opus::track,
        };
        let track = Arc::new(parse(record.clone()).map_err(|source| IngestError::Config { codec, source })?);
        if codec.kind() == MediaKind::Audio {
            self.set_audio(Arc::clone(&track), record, false);
        } else {
            let (last_dts, wait_key) =
                self.video.as_ref().map_or((MediaTime::ZERO, false), |v| (v.last_dts, v.wait_key));
            let length_size = match codec {
                Codec::H264 => record.get(4).map_or(4, |b| (b & 3) + 1),
                _ => 4,
            };
            self.video = Some(VideoState { track: Arc::clone(&track), length_size, record, last_dts, wait_key });
        }
        Ok(Some(IngestOutput::Track(track)))
    }

    fn set_audio(&mut self, track: Arc<Track>, record: Bytes, from_adts: bool) {
        let last_dts = self.audio.as_ref().map_or(MediaTime::ZERO, |a| a.last_dts);
        self.audio = Some(AudioState { track, record, from_adts, anchor: None, samples: 0, last_dts });
    }

    fn on_video(
        &mut self,
        codec: Codec,
        key: bool,
        dts_ms: i64,
        composition_ms: i32,
        data: Bytes,
    ) -> Result<Option<Frame>, IngestError> {
        let Some(video) = self.video.as_mut().filter(|v| v.track.codec == codec) else {
            return self.on_frame_without_config(codec);
        };
        // Slightly before the first audio packet is normal; further back, the two clocks differ,
        // and nothing would be heard with these frames.
        video.wait_key |= dts_ms < -MAX_STEP_BACK_MS;
        if dts_ms < -MAX_STEP_BACK_MS || (video.wait_key && !key) {
            return Ok(None);
        }
        let payload = match codec {
            Codec::H264 | Codec::H265 => h264::normalize_nal_units(data, video.length_size),
            _ => data,
        };
        if payload.is_empty() {
            return Ok(None);
        }
        if payload.len() > MAX_FRAME_BYTES {
            video.wait_key = true;
            return Err(IngestError::FrameTooLong { codec, bytes: payload.len() });
        }
        video.wait_key = false;
        let composition_ms = i64::from(composition_ms);
        let composition = MediaTime::from_ms(if composition_ms.abs() > MAX_STEP_MS { 0 } else { composition_ms });
        let dts = MediaTime::from_ms(dts_ms);
        // Without reordering, frames are decoded in the order in which they are presented.
        let in_order = video.track.video.is_some_and(|v| v.reorder_frames == Some(0));
        let (dts, pts) = if in_order {
            let time = (dts + composition).max(video.last_dts);
            (time, time)
        } else {
            let dts = dts.max(video.last_dts);
            (dts, dts + composition)
        };
        video.last_dts = dts;
        Ok(Some(Frame { track: Arc::clone(&video.track), dts, pts, key, payload }))
    }

    fn on_audio(&mut self, codec: Codec, dts_ms: i64, data: Bytes) -> Result<Option<Frame>, IngestError> {
        let payload = if codec == Codec::Aac { self.remove_adts_header(data)? } else { data };
        let Some(audio) = self.audio.as_mut().filter(|a| a.track.codec == codec) else {
            return self.on_frame_without_config(codec);
        };
        let Some(format) = audio.track.audio.filter(|_| dts_ms >= 0 && !payload.is_empty()) else { return Ok(None) };
        if payload.len() > MAX_FRAME_BYTES {
            return Err(IngestError::FrameTooLong { codec, bytes: payload.len() });
        }
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
        Ok(Some(Frame { track: Arc::clone(&audio.track), dts, pts: dts, key: true, payload }))
    }

    /// Removes the ADTS header of an AAC packet, if it has one, and derives the configuration from
    /// it unless the publisher sent one. A raw access unit cannot begin like ADTS: its first bits
    /// would mean that it is empty (ISO/IEC 14496-3 table 4.85).
    fn remove_adts_header(&mut self, data: Bytes) -> Result<Bytes, IngestError> {
        let Ok(adts) = aac::Adts::parse(&data) else { return Ok(data) };
        let has_own_config = self.audio.as_ref().is_some_and(|a| a.track.codec == Codec::Aac && !a.from_adts);
        if adts.frame_bytes != data.len() || adts.access_units != 1 {
            return if has_own_config { Ok(data) } else { Err(IngestError::Adts) };
        }
        let config = adts.audio_specific_config();
        let known = self.audio.as_ref().is_some_and(|a| a.track.codec == Codec::Aac && a.record[..] == config);
        if !has_own_config && !known {
            let record = Bytes::copy_from_slice(&config);
            let track =
                aac::track(record.clone()).map_err(|source| IngestError::Config { codec: Codec::Aac, source })?;
            self.set_audio(Arc::new(track), record, true);
        }
        Ok(data.slice(adts.header_bytes..))
    }

    /// Drops a frame that no decoder could use.
    fn on_frame_without_config(&mut self, codec: Codec) -> Result<Option<Frame>, IngestError> {
        let dropped = &mut self.without_config[codec.kind() as usize];
        *dropped = dropped.saturating_add(1);
        if *dropped == MAX_FRAMES_WITHOUT_CONFIG { Err(IngestError::NoConfig { codec }) } else { Ok(None) }
    }
}

fn within(a: MediaTime, b: MediaTime, limit: MediaTime) -> bool {
    a - b <= limit && b - a <= limit
}

/// Maximum difference between a timestamp and the sample count. Beyond it, samples were lost or
/// inserted, and counting restarts at the timestamp.
const MAX_AUDIO_DRIFT: MediaTime = MediaTime::from_ms(50);
/// An encoder may send a few frames before its decoder configuration. After this number, about one
/// second of video, it is missing.
const MAX_FRAMES_WITHOUT_CONFIG: u32 = 25;
/// 20 ms, the packet duration of nearly every encoder.
const OPUS_PACKET_SAMPLES: u32 = 960;

#[cfg(test)]
#[path = "ingest_test.rs"]
mod tests;
