//! Buffers up to two audio packets so that they leave in the same GSO batch as the next video
//! frame. A plain value.
//!
//! A GSO batch may end with only one datagram that is shorter than the others, so two Opus packets
//! are joined into one.

use headwater_wire::Frame;
use headwater_wire::rtp::OpusPacketizer;

/// Two packets of 20 ms cover the interval of a video frame at 25 frames per second.
const MAX_PACKETS: usize = 2;

/// The buffered packets of one audio track, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AudioBatch(Vec<Frame>);

impl AudioBatch {
    /// Adds a packet. If the batch is full because no video frame has arrived, returns its previous
    /// contents, which must be sent now.
    pub(crate) fn push(&mut self, frame: Frame) -> Vec<Frame> {
        let overdue = if self.0.len() < MAX_PACKETS { Vec::new() } else { self.take() };
        self.0.push(frame);
        overdue
    }

    /// Empties the batch and returns its contents, as one packet if they can be joined.
    pub(crate) fn take(&mut self) -> Vec<Frame> {
        if let [first, second] = &self.0[..]
            && let Some(joined) = OpusPacketizer.merge(first, second)
        {
            self.0.clear();
            return vec![joined];
        }
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use headwater_wire::{Codec, MediaTime, Track};
    use opus::{Application, Channels, Decoder, Encoder};

    use super::*;

    /// One second of a tone in Opus packets of 20 ms.
    fn tone_packets() -> Vec<Frame> {
        let track =
            Track { codec: Codec::Opus, config: bytes::Bytes::new(), codec_string: None, video: None, audio: None };
        let track = Arc::new(track);
        let mut encoder = Encoder::new(48_000, Channels::Stereo, Application::Audio).unwrap();
        let frame = |n: usize| {
            let tone = |k: usize| (((n * 960 + k / 2) as f32) * 0.05).sin() * 0.5;
            let pcm: Vec<f32> = (0..1_920).map(tone).collect();
            let payload = encoder.encode_vec_float(&pcm, 1_000).unwrap().into();
            let time = MediaTime::from_ms(n as i64 * 20);
            Frame { track: Arc::clone(&track), dts: time, pts: time, key: true, payload }
        };
        (0..50).map(frame).collect()
    }

    fn decode(packets: &[Frame]) -> Vec<f32> {
        let mut decoder = Decoder::new(48_000, Channels::Stereo).unwrap();
        let mut pcm = vec![0.0; 2 * 5_760];
        let mut decode_packet = |packet: &Frame| {
            let samples = decoder.decode_float(&packet.payload, &mut pcm, false).unwrap();
            pcm[..2 * samples].to_vec()
        };
        packets.iter().flat_map(&mut decode_packet).collect()
    }

    #[test]
    fn joined_packets_decode_to_identical_samples() {
        let (audio, mut batch) = (tone_packets(), AudioBatch::default());
        let mut packets = Vec::new();
        for pair in audio.chunks(2) {
            pair.iter().for_each(|frame| assert!(batch.push(frame.clone()).is_empty()));
            packets.extend(batch.take());
        }
        assert_eq!(packets.len(), 25);
        assert_eq!(packets[1].pts.as_ms(), 40);
        assert!(decode(&packets) == decode(&audio));
    }

    #[test]
    fn without_video_at_most_two_packets_are_buffered_and_none_is_lost() {
        let (audio, mut batch) = (tone_packets(), AudioBatch::default());
        let mut packets: Vec<_> = audio.iter().flat_map(|frame| batch.push(frame.clone())).collect();
        packets.extend(batch.take());
        assert_eq!(packets.len(), 25);
        assert!(decode(&packets) == decode(&audio));
        assert!(batch.take().is_empty());
    }

    #[test]
    fn packets_that_cannot_be_joined_are_returned_separately() {
        let (audio, mut batch) = (tone_packets(), AudioBatch::default());
        for frame in [&audio[0], &audio[2]] {
            batch.push(frame.clone());
        }
        assert_eq!(batch.take().len(), 2);
    }
}
