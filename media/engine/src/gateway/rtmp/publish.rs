//! A publisher: turns RTMP messages into frames of a stream in the hub.

use headwater_api::rest::Notice;
use headwater_wire::rtmp::Message;
use headwater_wire::rtmp::amf0::Value;
use headwater_wire::rtmp::ingest::{Ingest, IngestError, IngestOutput};
use headwater_wire::rtmp::message::kind;
use headwater_wire::{Frame, MediaKind, Track};

use crate::hub::Producer;

/// Produces one stream; dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Publisher {
    producer: Producer,
    /// Level of the line that announces a track.
    log_level: log::Level,
    ingest: Ingest,
    frames: u64,
    b_frames_reported: bool,
    unusable_reported: [bool; 2],
}

impl Publisher {
    pub(super) fn new(producer: Producer, log_level: log::Level) -> Self {
        Self {
            producer,
            log_level,
            ingest: Ingest::default(),
            frames: 0,
            b_frames_reported: false,
            unusable_reported: [false; 2],
        }
    }

    /// `app/stream_id`.
    pub(super) fn name(&self) -> &str {
        self.producer.stream().name().as_str()
    }

    /// True once another node owns the stream.
    pub(super) fn is_revoked(&self) -> bool {
        self.producer.is_revoked()
    }

    /// Frames received so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// Handles an audio or video message.
    pub(super) fn on_media(&mut self, message: Message) {
        let kind = message.kind;
        match self.ingest.on_message(message) {
            Ok(None) => {}
            Ok(Some(IngestOutput::Track(track))) => {
                self.producer.announce(&track);
                let video = track.video.unwrap_or_default();
                log::log!(
                    self.log_level, stream = self.name(), codec = track.codec.name(), profile = track.codec_string.as_deref(),
                    width = video.width, height = video.height;
                    "track announced"
                );
                self.report_b_frames(&track, None);
            }
            Ok(Some(IngestOutput::Frame(frame))) => {
                self.frames += 1;
                if !self.b_frames_reported && frame.kind() == MediaKind::Video {
                    self.report_b_frames(&frame.track, Some(&frame));
                }
                self.producer.send(frame);
            }
            Err(e) => self.on_unusable(kind, &e),
        }
    }

    /// Logs the encoder named by `onMetaData`. Everything else is in the decoder configurations.
    pub(super) fn on_metadata(&self, metadata: &Value) {
        let encoder: String = metadata
            .get("encoder")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .take(80)
            .collect();
        log::debug!(stream = self.name(), encoder = encoder.as_str(); "metadata received");
    }

    fn report_b_frames(&mut self, track: &Track, frame: Option<&Frame>) {
        let declared = track.video.and_then(|v| v.reorder_frames).is_some_and(|n| n > 0);
        if declared || frame.is_some_and(|f| f.pts != f.dts) {
            self.b_frames_reported = true;
            self.producer.stream().add_notice("b_frames", Notice::B_FRAMES);
        }
    }

    fn on_unusable(&mut self, message_kind: u8, error: &IngestError) {
        let (code, reported) = match message_kind {
            kind::VIDEO => ("video_unusable", &mut self.unusable_reported[0]),
            _ => ("audio_unusable", &mut self.unusable_reported[1]),
        };
        if !std::mem::replace(reported, true) {
            let sentence = headwater_api::error::Chain(error).to_string();
            self.producer.stream().add_notice(code, &sentence);
        }
    }
}
