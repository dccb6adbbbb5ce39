//! A publisher: turns RTMP messages into frames of a stream in the hub.

use std::net::SocketAddr;
use std::sync::Arc;

use headwater_api::rest::Notice;
use headwater_wire::Track;
use headwater_wire::rtmp::Message;
use headwater_wire::rtmp::amf0::Value;
use headwater_wire::rtmp::ingest::{Ingest, IngestError, IngestOutput};
use headwater_wire::rtmp::message::kind;

use crate::hub::Producer;
use crate::runtime::client_pool::PoolPlace;
use crate::runtime::log_limiter::LogLimiter;

/// Produces one stream; dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Publisher {
    /// The place that the stream's name takes; `None` for the loopback test. Before `producer`, so
    /// that it is free when the stream has ended.
    _place: Option<PoolPlace>,
    producer: Producer,
    /// Level of the line that announces a track.
    log_level: log::Level,
    peer: SocketAddr,
    log_limiter: Arc<LogLimiter>,
    ingest: Ingest,
    frames: u64,
    b_frames_reported: bool,
    /// The tracks that were announced last, indexed by `MediaKind`.
    tracks: [Option<Arc<Track>>; 2],
    unusable_reported: [bool; 2],
}

impl Publisher {
    pub(super) fn new(
        producer: Producer,
        place: Option<PoolPlace>,
        log_level: log::Level,
        peer: SocketAddr,
        log_limiter: &Arc<LogLimiter>,
    ) -> Self {
        Self {
            _place: place,
            producer,
            log_level,
            peer,
            log_limiter: Arc::clone(log_limiter),
            ingest: Ingest::default(),
            frames: 0,
            b_frames_reported: false,
            tracks: [None, None],
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
            Ok(Some(IngestOutput::Track(track))) => self.announce(&track),
            Ok(Some(IngestOutput::Frame(frame))) => {
                self.frames += 1;
                // The configuration of AAC with ADTS headers comes with a frame.
                if !self.tracks[frame.kind() as usize].as_ref().is_some_and(|t| Arc::ptr_eq(t, &frame.track)) {
                    self.announce(&frame.track);
                }
                self.producer.send(frame);
                self.report_b_frames();
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

    fn announce(&mut self, track: &Arc<Track>) {
        self.tracks[track.kind() as usize] = Some(Arc::clone(track));
        self.producer.announce(track);
        self.report_b_frames();
        if self.log_limiter.admits("track announced", self.peer.ip()) {
            let video = track.video.unwrap_or_default();
            log::log!(
                self.log_level, stream = self.name(), codec = track.codec.name(),
                profile = track.codec_string.as_deref(), width = video.width, height = video.height;
                "track announced"
            );
        }
    }

    fn report_b_frames(&mut self) {
        if !self.b_frames_reported && self.producer.has_b_frames() {
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
