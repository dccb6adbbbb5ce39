//! Opus: `OpusHead` (RFC 7845 §5.1) and the packet duration from the TOC byte (RFC 6716 §3.1).

use bytes::Bytes;

use super::CodecError;
use crate::{AudioTrack, Codec, Track};

/// The clock rate of Opus: 48 kHz, regardless of the sample rate of the encoder input.
pub const CLOCK_HZ: u32 = 48_000;

/// Creates a track from an `OpusHead`.
///
/// # Errors
/// If it is truncated, has another magic signature or major version, or has no channels.
pub fn track(config: Bytes) -> Result<Track, CodecError> {
    let head = config.first_chunk::<19>().ok_or(CodecError::Short { what: WHAT })?;
    if !head.starts_with(MAGIC) {
        let value = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        return Err(CodecError::Value { what: WHAT, field: "signature", value });
    }
    // The upper 4 bits are the major version, which must be zero (RFC 7845 §5.1).
    if head[8] > 15 {
        return Err(CodecError::Value { what: WHAT, field: "version", value: u32::from(head[8]) });
    }
    let channels = u32::from(head[9]);
    if channels == 0 {
        return Err(CodecError::Value { what: WHAT, field: "channels", value: 0 });
    }
    Ok(Track {
        codec: Codec::Opus,
        config,
        codec_string: Some("opus".to_owned()),
        video: None,
        audio: Some(AudioTrack { sample_rate_hz: CLOCK_HZ, channels, samples_per_frame: 0 }),
    })
}

/// Returns an `OpusHead` for one or two channels (mapping family 0).
pub fn head(channels: u8, pre_skip_samples: u16) -> Bytes {
    let mut out = Vec::with_capacity(19);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, channels]);
    out.extend_from_slice(&pre_skip_samples.to_le_bytes());
    out.extend_from_slice(&CLOCK_HZ.to_le_bytes());
    out.extend_from_slice(&[0, 0, 0]);
    out.into()
}

/// Returns the number of samples per channel, at 48 kHz, in a packet (RFC 6716 §3.1, §3.2). Returns
/// `None` if the packet is empty, truncated, or longer than the 120 ms that the format allows.
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1_920, 2_880][usize::from(config % 4)], // SILK: 10, 20, 40, 60 ms
        12..=15 => [480, 960][usize::from(config % 2)],              // hybrid: 10, 20 ms
        _ => [120, 240, 480, 960][usize::from(config % 4)],          // CELT: 2.5, 5, 10, 20 ms
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 63),
    };
    Some(frame * frames).filter(|samples| (1..=5_760).contains(samples))
}

const MAGIC: &[u8; 8] = b"OpusHead";
const WHAT: &str = "OpusHead";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_head_round_trips() {
        let track = track(head(2, 312)).unwrap();
        assert_eq!(track.audio.unwrap().channels, 2);
        assert_eq!(track.audio.unwrap().sample_rate_hz, 48_000);
    }

    #[test]
    fn packet_duration_follows_from_the_toc() {
        let check = |packet: &[u8], samples| assert_eq!(packet_samples(packet), samples, "{packet:02x?}");
        check(&[0xfc, 0], Some(960)); // CELT fullband 20 ms, one frame: what libopus sends
        check(&[0x08, 0], Some(960)); // SILK narrowband 20 ms
        check(&[0x19, 0], Some(5_760)); // two frames of 60 ms
        check(&[0xfb, 3], Some(2_880)); // three frames of 20 ms
        check(&[0xfb, 7], None); // 140 ms
        check(&[0xfb], None);
        check(&[0xfb, 0], None);
        check(&[], None);
    }
}
