//! AV1: `AV1CodecConfigurationRecord` (AV1 in ISOBMFF v1.2 §2.3.3) and the frame size in its
//! sequence header (AV1 §5.5.1).

use bytes::Bytes;

use super::CodecError;
use super::bits::Bits;
use crate::{Codec, Track, VideoTrack};

/// Creates a track from an `AV1CodecConfigurationRecord`.
///
/// # Errors
/// If it is shorter than 4 bytes or has another version.
pub fn track(config: Bytes) -> Result<Track, CodecError> {
    let head = config.first_chunk::<4>().ok_or(CodecError::Short { what: WHAT })?;
    if head[0] != 0x81 {
        return Err(CodecError::Value { what: WHAT, field: "marker and version", value: u32::from(head[0]) });
    }
    let codec_string = Some(codec_string(head));
    let (width, height) = size(&config[4..]).unwrap_or_default();
    // AV1 hides frames instead of reordering packets: decode order is output order.
    let video = Some(VideoTrack { width, height, reorder_frames: Some(0) });
    Ok(Track { codec: Codec::Av1, config, codec_string, video, audio: None })
}

/// Returns the short form of the codec string, such as `av01.0.08M.08` (AV1 in ISOBMFF v1.2 §5).
fn codec_string(head: &[u8; 4]) -> String {
    let tier = if head[2] & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (head[2] & 0x40 != 0, head[2] & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    format!("av01.{}.{:02}{tier}.{depth:02}", head[1] >> 5, head[1] & 31)
}

/// Returns width and height from the first sequence header OBU.
fn size(mut obus: &[u8]) -> Option<(u32, u32)> {
    while let Some((&head, rest)) = obus.split_first() {
        let rest = if head & 4 != 0 { rest.get(1..)? } else { rest };
        let (len, rest) = if head & 2 != 0 { leb128(rest)? } else { (rest.len(), rest) };
        let body = rest.get(..len)?;
        if head >> 3 & 15 == 1 {
            return sequence_header_size(body);
        }
        obus = &rest[len..];
    }
    None
}

fn sequence_header_size(body: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(body);
    bits.skip(3 + 1)?; // seq_profile, still_picture
    if bits.flag()? {
        bits.skip(5)?; // reduced_still_picture_header: seq_level_idx
    } else {
        operating_points(&mut bits)?;
    }
    let (width_bits, height_bits) = (bits.read(4)? + 1, bits.read(4)? + 1);
    Some((bits.read(width_bits)? + 1, bits.read(height_bits)? + 1))
}

fn operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut decoder_model_delay_bits = None;
    if bits.flag()? {
        // timing_info(), AV1 §5.5.3
        bits.skip(64)?;
        if bits.flag()? {
            bits.ue()?;
        }
        if bits.flag()? {
            // decoder_model_info(), AV1 §5.5.4
            decoder_model_delay_bits = Some(bits.read(5)? as usize + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let initial_display_delay = bits.flag()?;
    let points = bits.read(5)? + 1;
    for _ in 0..points {
        bits.skip(12)?; // operating_point_idc
        if bits.read(5)? > 7 {
            bits.skip(1)?; // seq_tier
        }
        if let Some(delay_bits) = decoder_model_delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if initial_display_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Some(())
}

/// Parses a `leb128()` of at most 32 bits (AV1 §4.10.5). Returns it with the rest of `bytes`.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let len = usize::try_from(u32::try_from(value).ok()?).ok()?;
            return Some((len, &bytes[i + 1..]));
        }
    }
    None
}

const WHAT: &str = "AV1CodecConfigurationRecord";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// ffmpeg 5.1.9: `-f lavfi -i testsrc2=s=640x360:r=30 -c:v libaom-av1 -cpu-used 8`.
    pub(crate) const AV1C: &[u8] =
        &[0x81, 0x01, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10];

    #[test]
    fn record_yields_size_and_codec_string() {
        let track = track(Bytes::from_static(AV1C)).unwrap();
        assert_eq!(track.codec_string.as_deref(), Some("av01.0.01M.08"));
        assert_eq!(track.video, Some(VideoTrack { width: 640, height: 360, reorder_frames: Some(0) }));
    }
}
