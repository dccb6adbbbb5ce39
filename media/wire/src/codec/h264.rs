//! H.264: `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) and length-prefixed NAL
//! units.
//!
//! | byte | field |
//! | --- | --- |
//! | 0 | configurationVersion = 1 |
//! | 1, 2, 3 | AVCProfileIndication, profile_compatibility, AVCLevelIndication |
//! | 4 | 6 bits reserved, 2 bits lengthSizeMinusOne |
//! | 5 | 3 bits reserved, 5 bits number of SPS; each: 2 bytes length, NAL unit |
//! | then | 1 byte number of PPS; each: 2 bytes length, NAL unit |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitReader, decode_nal};

use super::CodecError;
use crate::{Codec, Track, VideoTrack};

/// The decoder configuration of an H.264 track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderConfig {
    /// `profile_idc`.
    pub profile: u8,
    /// The constraint flags byte.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// Size of the length prefix of each NAL unit as the publisher sends it, in bytes: 1, 2 or 4.
    /// In a `Frame` it is always 4.
    pub length_size: u8,
    /// Sequence parameter sets: NAL units with their header byte, no start code.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets: NAL units with their header byte, no start code.
    pub pps: Vec<Bytes>,
}

impl DecoderConfig {
    /// Parses an `AVCDecoderConfigurationRecord`. Bytes after the parameter sets are ignored.
    ///
    /// # Errors
    /// If it is truncated, has another version, or has no SPS.
    pub fn parse(record: &Bytes) -> Result<Self, CodecError> {
        let mut rest = record.clone();
        if rest.len() < 6 {
            return Err(SHORT);
        }
        match rest.get_u8() {
            1 => {}
            version => return Err(CodecError::Value { what: WHAT, field: "version", value: u32::from(version) }),
        }
        let (profile, compatibility, level) = (rest.get_u8(), rest.get_u8(), rest.get_u8());
        let length_size = (rest.get_u8() & 3) + 1;
        if length_size == 3 {
            return Err(CodecError::Value { what: WHAT, field: "length size", value: 3 });
        }
        let count = rest.get_u8() & 31;
        let sps = parameter_sets(&mut rest, count)?;
        if sps.is_empty() {
            return Err(CodecError::Value { what: WHAT, field: "number of SPS", value: 0 });
        }
        let count = rest.try_get_u8().map_err(|_| SHORT)?;
        let pps = parameter_sets(&mut rest, count)?;
        Ok(Self { profile, compatibility, level, length_size, sps, pps })
    }

    /// Creates a configuration from an in-band SPS and PPS.
    ///
    /// # Errors
    /// If the SPS is too short to contain its profile.
    pub fn from_parameter_sets(sps: Bytes, pps: Bytes) -> Result<Self, CodecError> {
        let &[_, profile, compatibility, level, ..] = &sps[..] else { return Err(SHORT) };
        Ok(Self { profile, compatibility, level, length_size: 4, sps: vec![sps], pps: vec![pps] })
    }

    /// Returns the `AVCDecoderConfigurationRecord`, with at most 31 SPS and 255 PPS of at most
    /// 65,535 bytes each.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.extend_from_slice(&[1, self.profile, self.compatibility, self.level]);
        out.put_u8(0xfc | (self.length_size.clamp(1, 4) - 1));
        out.put_u8(0xe0 | self.sps.len().min(31) as u8);
        let put = |out: &mut BytesMut, nal: &Bytes| {
            let len = u16::try_from(nal.len()).unwrap_or(u16::MAX);
            out.put_u16(len);
            out.extend_from_slice(&nal[..usize::from(len)]);
        };
        self.sps.iter().take(31).for_each(|nal| put(&mut out, nal));
        out.put_u8(self.pps.len().min(255) as u8);
        self.pps.iter().take(255).for_each(|nal| put(&mut out, nal));
        // The High profiles add the chroma format and the bit depths (ISO/IEC 14496-15 §5.3.3.1.2).
        if matches!(self.profile, 100 | 110 | 122 | 144)
            && let Some(sps) = self.sps.first().and_then(|nal| read_sps(nal))
        {
            let chroma = &sps.chroma_info;
            out.put_u8(0xfc | (chroma.chroma_format.to_u32() as u8 & 3));
            out.put_u8(0xf8 | (chroma.bit_depth_luma_minus8 & 7));
            out.put_u8(0xf8 | (chroma.bit_depth_chroma_minus8 & 7));
            out.put_u8(0);
        }
        out.freeze()
    }

    /// Returns the RFC 6381 codec string, such as `avc1.64001f`.
    pub fn codec_string(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }

    /// Returns the track properties from the first SPS; zeros and `None` if it is unreadable.
    pub fn video(&self) -> VideoTrack {
        let Some(sps) = self.sps.first().and_then(|nal| read_sps(nal)) else { return VideoTrack::default() };
        let (width, height) = sps.pixel_dimensions().unwrap_or_default();
        let restrictions = sps.vui_parameters.and_then(|vui| vui.bitstream_restrictions);
        // Baseline has no B-frames, even if the VUI does not state it (ITU-T H.264 §A.2.1).
        let reorder_frames = restrictions.map(|r| r.max_num_reorder_frames).or((self.profile == 66).then_some(0));
        VideoTrack { width, height, reorder_frames }
    }
}

/// Creates a track from an `AVCDecoderConfigurationRecord`. The record is kept unchanged, except
/// that its length size is set to 4, because frames always have 4-byte length prefixes.
///
/// # Errors
/// See [`DecoderConfig::parse`].
pub fn track(config: Bytes) -> Result<Track, CodecError> {
    let parsed = DecoderConfig::parse(&config)?;
    let config = if parsed.length_size == 4 {
        config
    } else {
        let mut record = BytesMut::from(&config[..]);
        record[4] |= 3;
        record.freeze()
    };
    Ok(Track {
        codec: Codec::H264,
        config,
        codec_string: Some(parsed.codec_string()),
        video: Some(parsed.video()),
        audio: None,
    })
}

/// Returns the NAL units of a payload with 4-byte length prefixes. Skips empty ones, and stops at
/// the first length that exceeds the payload.
pub fn nal_units(payload: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    nal_units_with(payload, 4)
}

/// Returns the NAL units of a payload with length prefixes of `length_size` bytes. Skips empty
/// ones, and stops at the first length that exceeds the payload.
pub fn nal_units_with(payload: &Bytes, length_size: u8) -> impl Iterator<Item = Bytes> + '_ {
    let size = usize::from(length_size);
    let mut at = 0usize;
    std::iter::from_fn(move || {
        loop {
            let head = payload.get(at..at + size)?;
            let len = head.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
            let begin = at + size;
            let end = begin.checked_add(len).filter(|&end| end <= payload.len())?;
            at = end;
            if len > 0 {
                return Some(payload.slice(begin..end));
            }
        }
    })
}

/// Returns a payload with 4-byte length prefixes and without empty NAL units, which some encoders
/// send and decoders reject. The result is empty if there is no other NAL unit. Copies nothing if
/// the payload has this form already.
pub fn normalize_nal_units(payload: Bytes, length_size: u8) -> Bytes {
    let has_empty = || {
        let mut at = 0usize;
        while let Some(head) = payload.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
            match u32::from_be_bytes(*head) as usize {
                0 => return true,
                len => at = at.saturating_add(4).saturating_add(len),
            }
        }
        false
    };
    if length_size == 4 && !has_empty() { payload } else { widen_lengths(&payload, length_size) }
}

/// Returns true if the payload (4-byte length prefixes) contains an IDR picture.
pub fn is_idr(payload: &Bytes) -> bool {
    nal_units(payload).any(|nal| nal[0] & 31 == 5)
}

/// Converts a payload with length prefixes of `length_size` bytes to 4-byte length prefixes. Skips
/// empty NAL units, and stops at an invalid length.
pub fn widen_lengths(payload: &Bytes, length_size: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 64);
    for nal in nal_units_with(payload, length_size) {
        out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&nal);
    }
    out.freeze()
}

/// Parses an SPS. `h264-reader` is strict; an SPS that it rejects makes the properties unknown, but
/// does not reject the stream.
fn read_sps(nal: &[u8]) -> Option<SeqParameterSet> {
    // Far longer than any real SPS; bounds the work that a hostile one can cause.
    if nal.len() > 4_096 || nal.first().is_none_or(|b| b & 31 != 7) {
        return None;
    }
    let rbsp = decode_nal(nal).ok()?;
    SeqParameterSet::from_bits(BitReader::new(&*rbsp)).ok()
}

fn parameter_sets(rest: &mut Bytes, count: u8) -> Result<Vec<Bytes>, CodecError> {
    let mut sets = Vec::new();
    for _ in 0..count {
        let len = usize::from(rest.try_get_u16().map_err(|_| SHORT)?);
        if len > rest.len() {
            return Err(SHORT);
        }
        sets.push(rest.split_to(len));
    }
    Ok(sets)
}

const WHAT: &str = "AVCDecoderConfigurationRecord";
const SHORT: CodecError = CodecError::Short { what: WHAT };

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// ffmpeg 5.1.9: `-f lavfi -i testsrc2=s=1280x720:r=30 -c:v libx264 -profile:v high -bf 3`.
    pub(crate) const AVCC: &[u8] = &[
        0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb,
        0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x01, 0x00,
        0x06, 0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
    ];

    #[test]
    fn record_yields_size_codec_string_and_reordering() {
        let track = track(Bytes::from_static(AVCC)).unwrap();
        assert_eq!(track.codec_string.as_deref(), Some("avc1.64001f"));
        assert_eq!(track.video, Some(VideoTrack { width: 1280, height: 720, reorder_frames: Some(2) }));
    }

    #[test]
    fn record_round_trips() {
        let config = DecoderConfig::parse(&Bytes::from_static(AVCC)).unwrap();
        assert_eq!(config.encode()[..], AVCC[..]);
        let again = DecoderConfig::from_parameter_sets(config.sps[0].clone(), config.pps[0].clone()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn unreadable_sps_is_not_an_error() {
        let record = Bytes::from_static(&[1, 77, 0, 31, 0xff, 0xe1, 0, 2, 0x67, 0xff, 0]);
        let track = track(record).unwrap();
        assert_eq!(track.video, Some(VideoTrack::default()));
        assert_eq!(track.codec_string.as_deref(), Some("avc1.4d001f"));
    }

    #[test]
    fn short_lengths_are_widened_in_record_and_payload() {
        let mut record = AVCC.to_vec();
        record[4] = 0xfd;
        assert_eq!(track(record.into()).unwrap().config[..], AVCC[..]);
        let payload = Bytes::from_static(&[0, 2, 0x65, 1, 0, 1, 0x41]);
        assert_eq!(widen_lengths(&payload, 2)[..], [0, 0, 0, 2, 0x65, 1, 0, 0, 0, 1, 0x41]);
    }

    #[test]
    fn empty_nal_units_are_skipped_and_removed() {
        for (size, zero) in [(4, &[0, 0, 0, 0][..]), (2, &[0, 0]), (1, &[0])] {
            let unit = |bytes: &[u8]| [&vec![0; usize::from(size) - 1], &[bytes.len() as u8][..], bytes].concat();
            let payload = [zero, &unit(&[0x65, 1]), zero, zero, &unit(&[0x41]), zero].concat();
            let payload = Bytes::from(payload);
            assert_eq!(nal_units_with(&payload, size).count(), 2);
            let normal = normalize_nal_units(payload, size);
            assert_eq!(normal[..], [0, 0, 0, 2, 0x65, 1, 0, 0, 0, 1, 0x41]);
            assert_eq!(normalize_nal_units(normal.clone(), 4).as_ptr(), normal.as_ptr(), "copied without need");
            assert!(normalize_nal_units(Bytes::from(zero.repeat(3)), size).is_empty());
        }
    }

    #[test]
    fn nal_units_stop_at_an_invalid_length() {
        let payload = Bytes::from_static(&[0, 0, 0, 1, 0x65, 0, 0, 0, 9, 0x41]);
        assert_eq!(nal_units(&payload).collect::<Vec<_>>(), [Bytes::from_static(&[0x65])]);
        assert!(is_idr(&payload));
        assert!(!is_idr(&Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x65])));
    }
}
