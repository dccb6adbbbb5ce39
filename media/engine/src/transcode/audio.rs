//! Transcodes the AAC audio of a stream to Opus: reads from the hub, writes a rendition, and ends
//! when the rendition has no consumers.
//!
//! ```text
//!   source --AAC--> Decoder --PCM--> Resampler --48 kHz--> Encoder --Opus--> rendition
//! ```

use std::sync::Arc;
use std::time::Duration;

use headwater_wire::{Codec, Frame, MediaKind, MediaTime, Track};

use super::aac::Decoder;
use super::opus::{Encoder, RATE_HZ};
use super::resample::Resampler;
use crate::hub::{Producer, Stream, TranscodeError, Transcoder};

/// The transcoder of an engine: AAC-LC to Opus.
#[derive(Debug, Default)]
pub struct AudioTranscoder;

impl Transcoder for AudioTranscoder {
    fn start(&self, source: &Arc<Stream>, codec: Codec, mut out: Producer) -> Result<(), TranscodeError> {
        let tracks = source.tracks().borrow().clone();
        let track = tracks.audio.ok_or(TranscodeError::NoTrack { to: codec.name() })?;
        let unsupported = TranscodeError::Unsupported { from: track.codec.name(), to: codec.name() };
        if (track.codec, codec) != (Codec::Aac, Codec::Opus) {
            return Err(unsupported);
        }
        let mut pipeline = AacToOpus::new(track).map_err(|reason| {
            source.add_notice("audio_codec", &format!("WebRTC viewers receive no audio: {reason}."));
            unsupported
        })?;
        out.announce(&pipeline.opus_track);
        let mut consumer = source.consumer().only(MediaKind::Audio);
        source.affinity().spawn(async move {
            log::debug!(stream = consumer.stream().name().as_str(); "audio transcoder opened");
            let mut idle = std::pin::pin!(tokio::time::sleep(IDLE_TIMEOUT));
            loop {
                let item = tokio::select! {
                    item = consumer.next() => item,
                    () = &mut idle => {
                        if !out.stream().has_consumers() { break }
                        idle.as_mut().reset(tokio::time::Instant::now() + IDLE_TIMEOUT);
                        continue;
                    }
                };
                let Some(item) = item else { break };
                match pipeline.push(&item.frame) {
                    Ok(frames) => frames.for_each(|frame| out.send(frame)),
                    Err(reason) => {
                        let message = format!("WebRTC viewers receive no audio: {reason}.");
                        consumer.stream().add_notice("audio_codec", &message);
                        break;
                    }
                }
            }
            log::debug!(stream = consumer.stream().name().as_str(); "audio transcoder closed");
        });
        Ok(())
    }
}

/// The transcoding pipeline of one AAC track. Computes and does not wait.
struct AacToOpus {
    source_track: Arc<Track>,
    opus_track: Arc<Track>,
    decoder: Decoder,
    resampler: Resampler,
    encoder: Encoder,
    anchored: bool,
    pcm: Vec<f32>,
    resampled: Vec<f32>,
    out: Vec<Frame>,
}

impl AacToOpus {
    fn new(source_track: Arc<Track>) -> Result<Self, String> {
        let decoder = Decoder::new(&source_track).map_err(|e| e.to_string())?;
        let encoder = Encoder::new().map_err(|e| format!("the Opus encoder did not start: {e}"))?;
        let sample_rate_hz = source_track.audio.map_or(0, |a| a.sample_rate_hz);
        let resampler = Resampler::new(sample_rate_hz, RATE_HZ, 2);
        let opus_track = Arc::new(encoder.track());
        let (pcm, resampled, out) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { source_track, opus_track, decoder, resampler, encoder, anchored: false, pcm, resampled, out })
    }

    /// Transcodes one AAC packet and returns the Opus packets that it completes. A packet that
    /// cannot be decoded becomes a gap.
    ///
    /// # Errors
    /// Fails if the publisher has changed to another codec or to an unsupported configuration.
    fn push(&mut self, frame: &Frame) -> Result<std::vec::Drain<'_, Frame>, String> {
        if !Arc::ptr_eq(&self.source_track, &frame.track) && self.source_track != frame.track {
            if frame.track.codec != Codec::Aac {
                return Err("the publisher changed its audio to another codec".to_owned());
            }
            let opus_track = Arc::clone(&self.opus_track);
            *self = Self::new(Arc::clone(&frame.track))?;
            self.opus_track = opus_track;
        }
        self.source_track = Arc::clone(&frame.track);
        self.pcm.clear();
        if self.decoder.decode(&frame.payload, &mut self.pcm) {
            let gap = frame.pts - self.encoder.next_time();
            if !self.anchored || gap > MAX_CLOCK_DRIFT || MediaTime::ZERO - gap > MAX_CLOCK_DRIFT {
                self.resampler.reset();
                self.encoder.restart_at(frame.pts);
                self.anchored = true;
            }
            self.resampled.clear();
            self.resampler.push(&self.pcm, &mut self.resampled);
            let (opus_track, out) = (&self.opus_track, &mut self.out);
            self.encoder.push(&self.resampled, |time, payload| {
                out.push(Frame { track: Arc::clone(opus_track), dts: time, pts: time, key: true, payload });
            });
        }
        Ok(self.out.drain(..))
    }
}

/// How long transcoding continues without a consumer, so that a page that reloads finds it running.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// If the source's clock deviates from the sample count by more than this, the count restarts.
const MAX_CLOCK_DRIFT: MediaTime = MediaTime::from_ms(100);

#[cfg(test)]
#[path = "audio_test.rs"]
mod tests;
