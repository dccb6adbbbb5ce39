//! Writes sample entries, which hold the decoder configuration of a track (ISO/IEC 14496-12
//! §8.5.2).
//!
//! | codec | entry | specification |
//! | --- | --- | --- |
//! | H.264 | `avc1` with `avcC` | ISO/IEC 14496-15 §5 |
//! | H.265 | `hvc1` with `hvcC` | ISO/IEC 14496-15 §8 |
//! | AV1 | `av01` with `av1C` | AV1 in ISOBMFF 1.2.0 §2.2 |
//! | AAC | `mp4a` with `esds` | ISO/IEC 14496-14 §6.7 |
//! | Opus | `Opus` with `dOps` | Opus in ISOBMFF 0.6.8 §4.3 |

use mp4_atom as mp4;
use mp4_atom::Atom;

use super::CmafError;
use crate::{AudioTrack, Codec, Track};

/// Returns the sample entry of `track`.
///
/// # Errors
/// If its decoder configuration record is malformed.
pub(super) fn sample_entry(track: &Track) -> Result<mp4::Codec, CmafError> {
    let broken = |e: mp4::Error| CmafError::Configuration { codec: track.codec.name(), reason: e.to_string() };
    let mut config = track.config.as_ref();
    Ok(match track.codec {
        Codec::H264 => {
            let avcc = mp4::Avcc::decode_body(&mut config).map_err(broken)?;
            mp4::Avc1 { visual: visual(track), avcc, ..Default::default() }.into()
        }
        Codec::H265 => {
            let hvcc = mp4::Hvcc::decode_body(&mut config).map_err(broken)?;
            mp4::Hvc1 { visual: visual(track), hvcc, ..Default::default() }.into()
        }
        Codec::Av1 => {
            let av1c = mp4::Av1c::decode_body(&mut config).map_err(broken)?;
            mp4::Av01 { visual: visual(track), av1c, ..Default::default() }.into()
        }
        Codec::Aac => mp4::Mp4a { audio: audio(track.audio), esds: esds(config), btrt: None, taic: None }.into(),
        Codec::Opus => {
            let dops = dops(config)
                .ok_or(CmafError::Configuration { codec: "Opus", reason: "OpusHead is too short".to_owned() })?;
            mp4::Opus { audio: audio(track.audio), dops, btrt: None }.into()
        }
    })
}

fn visual(track: &Track) -> mp4::Visual {
    let video = track.video.unwrap_or_default();
    let pixels = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    mp4::Visual {
        data_reference_index: 1,
        width: pixels(video.width),
        height: pixels(video.height),
        ..Default::default()
    }
}

fn audio(track: Option<AudioTrack>) -> mp4::Audio {
    let (channels, hz) = track.map_or((2, 48_000), |a| (a.channels, a.sample_rate_hz));
    mp4::Audio {
        data_reference_index: 1,
        channel_count: u16::try_from(channels).unwrap_or(u16::MAX),
        sample_size: 16,
        // The field has 16 bits. For a rate above 65,535 Hz, 0 makes the decoder use its own
        // configuration.
        sample_rate: u16::try_from(hz).unwrap_or(0).into(),
    }
}

/// Wraps the publisher's `AudioSpecificConfig` unchanged: a rewritten one would lose SBR and PS
/// (HE-AAC).
fn esds(config: &[u8]) -> mp4::Esds {
    mp4::Esds {
        es_desc: mp4::esds::EsDescriptor {
            es_id: 0,
            dec_config: mp4::esds::DecoderConfig {
                object_type_indication: OBJECT_TYPE_AAC,
                stream_type: STREAM_TYPE_AUDIO,
                dec_specific: Some(mp4::esds::DecoderSpecific { raw: config.to_vec(), ..Default::default() }),
                ..Default::default()
            },
            ..Default::default()
        },
    }
}

/// Converts `OpusHead` (RFC 7845 §5.1) to `dOps`, which has the same fields in big-endian order,
/// without the signature.
fn dops(head: &[u8]) -> Option<mp4::Dops> {
    let fields = head.strip_prefix(b"OpusHead")?;
    let (&[_version, channels, s0, s1, r0, r1, r2, r3, g0, g1, family], table) = fields.split_first_chunk::<11>()?;
    let channel_mapping = match family {
        0 => None,
        _ => {
            let (&[stream_count, coupled_count], map) = table.split_first_chunk::<2>()?;
            let channel_mapping = map.get(..usize::from(channels))?.to_vec();
            Some(mp4::OpusChannelMapping { family, stream_count, coupled_count, channel_mapping })
        }
    };
    Some(mp4::Dops {
        output_channel_count: channels,
        pre_skip: u16::from_le_bytes([s0, s1]),
        input_sample_rate: u32::from_le_bytes([r0, r1, r2, r3]),
        output_gain: i16::from_le_bytes([g0, g1]),
        channel_mapping,
    })
}

/// ISO/IEC 14496-1 table 5: Audio ISO/IEC 14496-3.
const OBJECT_TYPE_AAC: u8 = 0x40;
/// ISO/IEC 14496-1 table 6: AudioStream.
const STREAM_TYPE_AUDIO: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_head_is_parsed_as_little_endian_and_never_past_its_end() {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";
        let read = dops(head).unwrap();
        assert_eq!((read.output_channel_count, read.pre_skip, read.input_sample_rate), (2, 312, 48_000));
        for end in 0..head.len() {
            assert!(dops(&head[..end]).is_none(), "{end} bytes were enough");
        }
        let surround = b"OpusHead\x01\x03\x38\x01\x80\xbb\x00\x00\x00\x00\x01\x02\x01\x00\x01\x02";
        assert_eq!(dops(surround).unwrap().channel_mapping.unwrap().channel_mapping, [0, 1, 2]);
        assert!(dops(&surround[..surround.len() - 1]).is_none());
    }
}
