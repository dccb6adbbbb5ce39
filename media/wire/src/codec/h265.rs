//! H.265: `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1) and the frame size in its
//! SPS (ITU-T H.265 §7.3.2.2).
//!
//! | byte | field |
//! | --- | --- |
//! | 0 | configurationVersion = 1 |
//! | 1 | 2 bits profile space, 1 bit tier, 5 bits profile |
//! | 2..6 | profile compatibility flags |
//! | 6..12 | constraint flags |
//! | 12 | level |
//! | 21 | ..., 2 bits lengthSizeMinusOne |
//! | 22 | number of arrays; each: NAL unit type, 2 bytes count, then 2 bytes length and NAL unit |

use bytes::{Buf, Bytes};

use super::CodecError;
use super::bits::Bits;
use crate::{Codec, Track, VideoTrack};

/// Creates a track from an `HEVCDecoderConfigurationRecord`.
///
/// # Errors
/// If it is shorter than its fixed part, has a version other than 1 (0 is tolerated, because early
/// encoders write it), or its NAL unit length prefixes do not have 4 bytes.
pub fn track(config: Bytes) -> Result<Track, CodecError> {
    let head = config.first_chunk::<23>().ok_or(CodecError::Short { what: WHAT })?;
    if head[0] > 1 {
        return Err(CodecError::Value { what: WHAT, field: "version", value: u32::from(head[0]) });
    }
    if head[21] & 3 != 3 {
        return Err(CodecError::Value { what: WHAT, field: "length size", value: u32::from(head[21] & 3) + 1 });
    }
    let codec_string = Some(codec_string(head));
    let video = sps(&config).and_then(|nal| read_sps(&nal)).unwrap_or_default();
    Ok(Track { codec: Codec::H265, config, codec_string, video: Some(video), audio: None })
}

/// Returns true if the payload (4-byte length prefixes) contains a picture at which a decoder can
/// start (IRAP, NAL unit types 16 to 23).
pub fn is_irap(payload: &Bytes) -> bool {
    super::h264::nal_units(payload).any(|nal| (16..=23).contains(&(nal[0] >> 1 & 63)))
}

/// Returns the codec string, such as `hvc1.1.6.L93.90` (ISO/IEC 14496-15 annex E.3).
fn codec_string(head: &[u8; 23]) -> String {
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let tier = if head[1] & 0x20 == 0 { 'L' } else { 'H' };
    let profile = head[1] & 31;
    let compatibility = u32::from_be_bytes([head[2], head[3], head[4], head[5]]).reverse_bits();
    let mut out = format!("hvc1.{space}{profile}.{compatibility:X}.{tier}{}", head[12]);
    let constraints = &head[6..12];
    let used = constraints.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        out.push_str(&format!(".{byte:X}"));
    }
    out
}

/// Returns the first SPS in the arrays.
fn sps(config: &Bytes) -> Option<Bytes> {
    let mut rest = config.slice(22..);
    let arrays = rest.try_get_u8().ok()?;
    for _ in 0..arrays {
        let kind = rest.try_get_u8().ok()? & 63;
        let count = rest.try_get_u16().ok()?;
        for _ in 0..count {
            let len = usize::from(rest.try_get_u16().ok()?);
            if len > rest.len() {
                return None;
            }
            let nal = rest.split_to(len);
            if kind == 33 {
                return Some(nal);
            }
        }
    }
    None
}

fn read_sps(nal: &[u8]) -> Option<VideoTrack> {
    let rbsp = without_emulation_prevention(nal.get(2..)?);
    let mut bits = Bits::new(&rbsp);
    bits.skip(4)?; // sps_video_parameter_set_id
    let max_sub_layers_minus1 = bits.read(3)?;
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    profile_tier_level(&mut bits, max_sub_layers_minus1)?;
    bits.ue()?; // sps_seq_parameter_set_id
    let chroma_format_idc = bits.ue()?;
    if chroma_format_idc == 3 {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let (mut width, mut height) = (bits.ue()?, bits.ue()?);
    if bits.flag()? {
        let (sub_width, sub_height) = match chroma_format_idc {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let (left, right, top, bottom) = (bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?);
        width = width.checked_sub(left.checked_add(right)?.checked_mul(sub_width)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(sub_height)?)?;
    }
    let mut video = VideoTrack { width, height, reorder_frames: None };
    video.reorder_frames = reorder_frames(&mut bits, max_sub_layers_minus1);
    Some(video)
}

/// Reads `sps_max_num_reorder_pics` of the highest sub-layer.
fn reorder_frames(bits: &mut Bits<'_>, max_sub_layers_minus1: u32) -> Option<u32> {
    bits.ue()?; // bit_depth_luma_minus8
    bits.ue()?; // bit_depth_chroma_minus8
    bits.ue()?; // log2_max_pic_order_cnt_lsb_minus4
    let all_layers = bits.flag()?;
    let mut reorder = None;
    for _ in if all_layers { 0 } else { max_sub_layers_minus1 }..=max_sub_layers_minus1 {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        reorder = Some(bits.ue()?);
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    reorder
}

/// Skips `profile_tier_level()` (ITU-T H.265 §7.3.3).
fn profile_tier_level(bits: &mut Bits<'_>, max_sub_layers_minus1: u32) -> Option<()> {
    bits.skip(88 + 8)?;
    let mut present = Vec::with_capacity(7);
    for _ in 0..max_sub_layers_minus1 {
        present.push((bits.flag()?, bits.flag()?));
    }
    if max_sub_layers_minus1 > 0 {
        bits.skip(2 * (8 - max_sub_layers_minus1 as usize))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

const WHAT: &str = "HEVCDecoderConfigurationRecord";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// ffmpeg 5.1.9: `-f lavfi -i testsrc2=s=640x360:r=30 -c:v libx265 -x265-params bframes=3`,
    /// without the SEI array.
    pub(crate) const HVCC: &[u8] = &[
        0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3f, 0xf0, 0x00, 0xfc, 0xfd, 0xf8,
        0xf8, 0x00, 0x00, 0x0f, 0x03, 0xa0, 0x00, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60,
        0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3f, 0x95, 0x94, 0x09, 0xa1, 0x00,
        0x01, 0x00, 0x2a, 0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3f, 0xa0, 0x05, 0x02, 0x01, 0x69, 0x65, 0x95, 0x96, 0x49, 0x32, 0xbc, 0x05, 0xa0, 0x20, 0x00,
        0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x03, 0x03, 0xc1, 0xa2, 0x00, 0x01, 0x00, 0x07, 0x44, 0x01, 0xc1, 0x72,
        0xb4, 0x62, 0x40,
    ];

    #[test]
    fn record_yields_size_codec_string_and_reordering() {
        let track = track(Bytes::from_static(HVCC)).unwrap();
        assert_eq!(track.codec_string.as_deref(), Some("hvc1.1.6.L63.90"));
        assert_eq!(track.video, Some(VideoTrack { width: 640, height: 360, reorder_frames: Some(2) }));
    }

    #[test]
    fn unreadable_sps_is_not_an_error() {
        let track = track(Bytes::from_static(&HVCC[..30])).unwrap();
        assert_eq!(track.video, Some(VideoTrack::default()));
    }
}
