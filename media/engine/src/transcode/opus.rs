//! Encodes interleaved stereo samples at 48 kHz to Opus packets of 20 ms and computes the time
//! of each packet.
//!
//! A plain value: samples in, packets out. Time is counted in samples from an anchor, so it neither
//! drifts nor jitters.

use bytes::Bytes;
use headwater_wire::{AudioTrack, Codec, MediaTime, Track};
use opus::{Application, Bitrate, Channels};

/// Samples per second of every Opus stream (RFC 7587 §4.1).
pub(super) const RATE_HZ: u32 = 48_000;
/// Samples per channel in one packet: 20 ms.
const PACKET_FRAMES: usize = 960;
/// Maximum size of a packet: RFC 6716 §3.2.1 allows 1,275 bytes per frame.
const PACKET_BYTES: usize = 1_275;
/// Good quality for stereo music; speech needs half.
const BITRATE_BPS: i32 = 96_000;
/// On a scale to 10: uses half the CPU time of 10, without an audible difference at this bitrate.
const COMPLEXITY: i32 = 5;

/// A stereo Opus encoder.
pub(super) struct Encoder {
    inner: opus::Encoder,
    pending: Vec<f32>,
    anchor: MediaTime,
    /// Samples per channel encoded since the anchor.
    encoded_samples: i64,
    lookahead: i64,
    packet: [u8; PACKET_BYTES],
}

impl Encoder {
    /// Creates an encoder.
    ///
    /// # Errors
    /// Fails if libopus cannot be initialized.
    pub(super) fn new() -> Result<Self, opus::Error> {
        let mut inner = opus::Encoder::new(RATE_HZ, Channels::Stereo, Application::Audio)?;
        inner.set_bitrate(Bitrate::Bits(BITRATE_BPS))?;
        inner.set_complexity(COMPLEXITY)?;
        inner.set_inband_fec(true)?;
        inner.set_packet_loss_perc(5)?;
        let lookahead = i64::from(inner.get_lookahead()?);
        Ok(Self {
            inner,
            pending: Vec::new(),
            anchor: MediaTime::ZERO,
            encoded_samples: 0,
            lookahead,
            packet: [0; PACKET_BYTES],
        })
    }

    /// Restarts the timeline: the next sample pushed plays at `time`. Drops samples that are
    /// not encoded yet.
    pub(super) fn restart_at(&mut self, time: MediaTime) {
        self.pending.clear();
        self.anchor = time;
        self.encoded_samples = 0;
    }

    /// Returns the time at which the next sample pushed plays.
    pub(super) fn next_time(&self) -> MediaTime {
        self.anchor + MediaTime::from_ticks(self.encoded_samples + (self.pending.len() / 2) as i64, RATE_HZ)
    }

    /// Adds interleaved stereo samples. Calls `emit` with the start time and the payload of
    /// each complete packet.
    pub(super) fn push(&mut self, samples: &[f32], mut emit: impl FnMut(MediaTime, Bytes)) {
        self.pending.extend_from_slice(samples);
        let mut used = 0;
        while self.pending.len() - used >= PACKET_FRAMES * 2 {
            let piece = &self.pending[used..used + PACKET_FRAMES * 2];
            used += PACKET_FRAMES * 2;
            // The decoder outputs a packet `lookahead` samples late; shift its time to keep audio
            // and video in sync.
            let time = self.anchor + MediaTime::from_ticks(self.encoded_samples - self.lookahead, RATE_HZ);
            self.encoded_samples += PACKET_FRAMES as i64;
            if let Ok(len) = self.inner.encode_float(piece, &mut self.packet) {
                emit(time, Bytes::copy_from_slice(&self.packet[..len]));
            }
        }
        self.pending.drain(..used);
    }

    /// Returns the track of the packets, with its `OpusHead` (RFC 7845 §5.1).
    pub(super) fn track(&self) -> Track {
        let mut head = Vec::with_capacity(19);
        head.extend_from_slice(b"OpusHead\x01\x02");
        head.extend_from_slice(&(self.lookahead as u16).to_le_bytes());
        head.extend_from_slice(&RATE_HZ.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]);
        Track {
            codec: Codec::Opus,
            config: head.into(),
            codec_string: Some("opus".to_owned()),
            video: None,
            audio: Some(AudioTrack { sample_rate_hz: RATE_HZ, channels: 2, samples_per_frame: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_twenty_milliseconds_apart_to_the_sample() {
        let mut encoder = Encoder::new().unwrap();
        encoder.restart_at(MediaTime::from_ms(1_000));
        let mut times = Vec::new();
        for _ in 0..100 {
            encoder.push(&[0.1; 2 * 1_115], |time, _| times.push(time.to_ticks(RATE_HZ)));
        }
        assert_eq!(times.len(), 100 * 1_115 / 960);
        assert!(times.windows(2).all(|w| w[1] - w[0] == 960));
        assert_eq!(times[0] + encoder.lookahead, 48_000);
        assert_eq!(encoder.next_time().to_ticks(RATE_HZ), 48_000 + 111_500);
    }
}
