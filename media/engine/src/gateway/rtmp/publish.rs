//! A publisher: turns RTMP messages into frames of a stream in the hub.

use headwater_api::status::Notice;
use headwater_wire::rtmp::Message;
use headwater_wire::rtmp::amf0::Value;
use headwater_wire::rtmp::ingest::{Ingest, IngestError, Media};
use headwater_wire::rtmp::message::kind;
use headwater_wire::{Frame, MediaKind, Track};

use crate::hub::Producer;

/// Produces one stream; dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Publisher {
    producer: Producer,
    /// Level of the line that announces a track.
    level: log::Level,
    ingest: Ingest,
    frames: u64,
    told_b_frames: bool,
    told_unusable: [bool; 2],
}

impl Publisher {
    pub(super) fn new(producer: Producer, level: log::Level) -> Self {
        Self { producer, level, ingest: Ingest::default(), frames: 0, told_b_frames: false, told_unusable: [false; 2] }
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
            Ok(Some(Media::Track(track))) => {
                self.producer.announce(&track);
                let about = track.video.unwrap_or_default();
                log::log!(
                    self.level, stream = self.name(), codec = track.codec.name(), profile = track.codec_string.as_deref(),
                    width = about.width, height = about.height;
                    "track announced"
                );
                self.look_for_b_frames(&track, None);
            }
            Ok(Some(Media::Frame(frame))) => {
                self.frames += 1;
                if !self.told_b_frames && frame.kind() == MediaKind::Video {
                    self.look_for_b_frames(&frame.track, Some(&frame));
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

    fn look_for_b_frames(&mut self, track: &Track, frame: Option<&Frame>) {
        let said = track.video.and_then(|v| v.reorder_frames).is_some_and(|n| n > 0);
        if said || frame.is_some_and(|f| f.pts != f.dts) {
            self.told_b_frames = true;
            self.producer.stream().notice("b_frames", Notice::B_FRAMES);
        }
    }

    fn on_unusable(&mut self, message_kind: u8, error: &IngestError) {
        let (code, told) = match message_kind {
            kind::VIDEO => ("video_unusable", &mut self.told_unusable[0]),
            _ => ("audio_unusable", &mut self.told_unusable[1]),
        };
        if !std::mem::replace(told, true) {
            let sentence = headwater_api::error::Chain(error).to_string();
            self.producer.stream().notice(code, &sentence);
        }
    }
}
