//! The content of audio and video messages: FLV tags and their Enhanced RTMP form (FLV 10.1 annex
//! E.4; Enhanced RTMP v2).
//!
//! | first byte, video | meaning |
//! | --- | --- |
//! | `0fff cccc` | frame type f (1 key), codec id c (7 AVC; 12 HEVC, unofficial); then packet type, 3 bytes composition time |
//! | `1fff pppp` | frame type f, packet type p; then FourCC; composition time only for CodedFrames of AVC and HEVC |
//!
//! | first byte, audio | meaning |
//! | --- | --- |
//! | `ssss ....` | sound format s (10 AAC); then packet type |
//! | `1001 pppp` | packet type p; then FourCC |

use bytes::{Buf, Bytes};

use crate::Codec;

/// The content of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// A decoder configuration record, in the format of `Track::config`.
    Config(Codec, Bytes),
    /// A video frame or an audio packet.
    Frame {
        /// Codec of the frame.
        codec: Codec,
        /// The key frame flag of the tag; always true for audio.
        key: bool,
        /// Presentation time minus decoding time, in milliseconds.
        composition_ms: i32,
        /// The encoded bytes, without any FLV header.
        data: Bytes,
    },
    /// A tag without relevant content: end of sequence, HDR metadata, a seek command, an empty
    /// frame.
    Ignored,
}

/// An invalid or unsupported tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// The tag ends inside its header.
    #[error("{0} tag ends early")]
    Truncated(&'static str),
    /// An unsupported codec.
    #[error("{0} is not supported here")]
    UnsupportedCodec(String),
    /// Enhanced RTMP multitrack is not supported.
    #[error("multitrack {0} is not supported here: send one track")]
    Multitrack(&'static str),
}

/// Parses the body of a video message.
///
/// # Errors
/// See [`TagError`].
pub fn parse_video(body: Bytes) -> Result<Tag, TagError> {
    const SHORT: TagError = TagError::Truncated("video");
    let mut rest = body;
    if rest.is_empty() {
        return Ok(Tag::Ignored);
    }
    let first = rest.get_u8();
    let frame_type = first >> 4 & 7;
    if first & 0x80 == 0 {
        // Frame type 5 is a command to the player, followed by one byte.
        if frame_type == 5 {
            return Ok(Tag::Ignored);
        }
        let codec = match first & 15 {
            7 => Codec::H264,
            12 => Codec::H265,
            2 => return Err(TagError::UnsupportedCodec("Sorenson H.263 video".to_owned())),
            4 | 5 => return Err(TagError::UnsupportedCodec("VP6 video".to_owned())),
            id => return Err(TagError::UnsupportedCodec(format!("video with FLV codec id {id}"))),
        };
        let packet_type = rest.try_get_u8().map_err(|_| SHORT)?;
        let composition_ms = read_composition_ms(&mut rest).ok_or(SHORT)?;
        return Ok(match packet_type {
            0 => config(codec, rest),
            1 => frame(codec, frame_type == 1, composition_ms, rest),
            _ => Tag::Ignored,
        });
    }
    let packet_type = skip_mod_ex(first & 15, &mut rest).ok_or(SHORT)?;
    match packet_type {
        6 => return Err(TagError::Multitrack("video")),
        _ if frame_type == 5 && packet_type != 4 => return Ok(Tag::Ignored),
        _ => {}
    }
    let codec = match &read_four_cc(&mut rest).ok_or(SHORT)? {
        b"avc1" => Codec::H264,
        b"hvc1" => Codec::H265,
        b"av01" => Codec::Av1,
        other => return Err(unsupported_codec("video", *other)),
    };
    Ok(match packet_type {
        0 => config(codec, rest),
        1 => {
            let composition_ms = if codec == Codec::Av1 { 0 } else { read_composition_ms(&mut rest).ok_or(SHORT)? };
            frame(codec, frame_type == 1, composition_ms, rest)
        }
        3 => frame(codec, frame_type == 1, 0, rest),
        _ => Tag::Ignored,
    })
}

/// Parses the body of an audio message.
///
/// # Errors
/// See [`TagError`].
pub fn parse_audio(body: Bytes) -> Result<Tag, TagError> {
    const SHORT: TagError = TagError::Truncated("audio");
    let mut rest = body;
    if rest.is_empty() {
        return Ok(Tag::Ignored);
    }
    let first = rest.get_u8();
    match first >> 4 {
        10 => {
            let packet_type = rest.try_get_u8().map_err(|_| SHORT)?;
            return Ok(match packet_type {
                0 => config(Codec::Aac, rest),
                _ => frame(Codec::Aac, true, 0, rest),
            });
        }
        9 => {}
        format => {
            let name = match format {
                0 | 3 => "PCM audio",
                1 => "ADPCM audio",
                2 | 14 => "MP3 audio",
                4..=6 => "Nellymoser audio",
                7 | 8 => "G.711 audio",
                11 => "Speex audio",
                _ => "this audio format",
            };
            return Err(TagError::UnsupportedCodec(name.to_owned()));
        }
    }
    let packet_type = skip_mod_ex(first & 15, &mut rest).ok_or(SHORT)?;
    if packet_type == 5 {
        return Err(TagError::Multitrack("audio"));
    }
    let codec = match &read_four_cc(&mut rest).ok_or(SHORT)? {
        b"mp4a" => Codec::Aac,
        b"Opus" => Codec::Opus,
        other => return Err(unsupported_codec("audio", *other)),
    };
    Ok(match packet_type {
        0 => config(codec, rest),
        1 => frame(codec, true, 0, rest),
        _ => Tag::Ignored,
    })
}

/// The tag header before the encoded bytes; at most 8 bytes.
#[derive(Debug, Clone, Copy)]
pub struct TagHeader {
    bytes: [u8; 8],
    len: usize,
}

impl TagHeader {
    /// Returns the bytes of the header.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn new(parts: &[&[u8]]) -> Self {
        let mut out = Self { bytes: [0; 8], len: 0 };
        for byte in parts.iter().copied().flatten().take(8) {
            out.bytes[out.len] = *byte;
            out.len += 1;
        }
        out
    }
}

/// Returns the header of a tag with a decoder configuration record.
pub fn config_header(codec: Codec) -> TagHeader {
    match codec {
        Codec::H264 => TagHeader::new(&[&[0x17, 0, 0, 0, 0]]),
        Codec::H265 => TagHeader::new(&[&[0x90], b"hvc1"]),
        Codec::Av1 => TagHeader::new(&[&[0x90], b"av01"]),
        Codec::Aac => TagHeader::new(&[&[0xaf, 0]]),
        Codec::Opus => TagHeader::new(&[&[0x90], b"Opus"]),
    }
}

/// Returns the header of a tag with a frame. `composition_ms` is used for H.264 and H.265 only.
pub fn frame_header(codec: Codec, key: bool, composition_ms: i32) -> TagHeader {
    let frame_type = if key { 0x10 } else { 0x20 };
    let [_, cts @ ..] = composition_ms.to_be_bytes();
    match codec {
        Codec::H264 => TagHeader::new(&[&[frame_type | 7, 1], &cts]),
        Codec::H265 if composition_ms == 0 => TagHeader::new(&[&[0x80 | frame_type | 3], b"hvc1"]),
        Codec::H265 => TagHeader::new(&[&[0x80 | frame_type | 1], b"hvc1", &cts]),
        Codec::Av1 => TagHeader::new(&[&[0x80 | frame_type | 1], b"av01"]),
        Codec::Aac => TagHeader::new(&[&[0xaf, 1]]),
        Codec::Opus => TagHeader::new(&[&[0x91], b"Opus"]),
    }
}

fn config(codec: Codec, data: Bytes) -> Tag {
    if data.is_empty() { Tag::Ignored } else { Tag::Config(codec, data) }
}

fn frame(codec: Codec, key: bool, composition_ms: i32, data: Bytes) -> Tag {
    if data.is_empty() { Tag::Ignored } else { Tag::Frame { codec, key, composition_ms, data } }
}

fn read_composition_ms(rest: &mut Bytes) -> Option<i32> {
    let [a, b, c] = *rest.first_chunk::<3>()?;
    rest.advance(3);
    Some(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

fn read_four_cc(rest: &mut Bytes) -> Option<[u8; 4]> {
    let four = *rest.first_chunk::<4>()?;
    rest.advance(4);
    Some(four)
}

fn unsupported_codec(what: &str, four_cc: [u8; 4]) -> TagError {
    let name: String = four_cc.iter().map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '?' }).collect();
    TagError::UnsupportedCodec(format!("{name} {what}"))
}

/// Skips ModEx parts, which have packet type 7 and precede the actual packet type (Enhanced RTMP
/// v2, "ExVideoTagHeader"). Returns the actual packet type.
fn skip_mod_ex(mut packet_type: u8, rest: &mut Bytes) -> Option<u8> {
    while packet_type == 7 {
        let mut len = usize::from(rest.try_get_u8().ok()?) + 1;
        if len == 256 {
            len = usize::from(rest.try_get_u16().ok()?) + 1;
        }
        if rest.len() < len {
            return None;
        }
        rest.advance(len);
        packet_type = rest.try_get_u8().ok()? & 15;
    }
    Some(packet_type)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn data_frame(codec: Codec, key: bool, composition_ms: i32) -> Tag {
        frame(codec, key, composition_ms, Bytes::from_static(b"data"))
    }

    #[test]
    fn headers_of_every_codec_round_trip() {
        for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Aac, Codec::Opus] {
            let parse = |head: TagHeader| {
                let body = Bytes::from([head.as_slice(), b"data"].concat());
                if codec.kind() == crate::MediaKind::Video { parse_video(body) } else { parse_audio(body) }
            };
            assert_eq!(parse(config_header(codec)), Ok(Tag::Config(codec, Bytes::from_static(b"data"))));
            assert_eq!(parse(frame_header(codec, true, 0)), Ok(data_frame(codec, true, 0)));
        }
        for (codec, cts) in [(Codec::H264, -40), (Codec::H265, 80), (Codec::H264, -0x80_0000)] {
            let body = Bytes::from([frame_header(codec, false, cts).as_slice(), b"data"].concat());
            assert_eq!(parse_video(body), Ok(data_frame(codec, false, cts)));
        }
    }

    #[test]
    fn mod_ex_parts_are_skipped() {
        let body = Bytes::from([&[0x97, 2, 0, 0, 9, 0x01], &b"av01data"[..]].concat());
        assert_eq!(parse_video(body), Ok(data_frame(Codec::Av1, true, 0)));
        let long = [&[0x97, 255, 1, 0][..], &[0; 257], &[0x03], b"hvc1data"].concat();
        assert_eq!(parse_video(long.into()), Ok(data_frame(Codec::H265, true, 0)));
    }

    #[test]
    fn unsupported_codec_is_rejected_by_name() {
        let video = |bytes: &'static [u8]| parse_video(Bytes::from_static(bytes)).unwrap_err().to_string();
        let audio = |bytes: &'static [u8]| parse_audio(Bytes::from_static(bytes)).unwrap_err().to_string();
        assert_eq!(video(&[0x12, 0]), "Sorenson H.263 video is not supported here");
        assert_eq!(video(b"\x91vp09x"), "vp09 video is not supported here");
        assert_eq!(video(&[0x96, 0x01]), "multitrack video is not supported here: send one track");
        assert_eq!(audio(&[0x2f, 0]), "MP3 audio is not supported here");
        assert_eq!(audio(&[0x95, 0x00]), "multitrack audio is not supported here: send one track");
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let golden: [&[u8]; 4] = [
            &[0x17, 1, 0, 0, 40, 0, 0, 0, 1, 0x65],
            b"\x97\x02\x00\x00\x09\x01hvc1\x00\x00\x28data",
            b"\x97\xff\x00\x02\x00\x00\x09\x01Opusdata",
            &[0xaf, 0, 0x12, 0x10],
        ];
        for bytes in golden {
            for end in 0..=bytes.len() {
                let _ = (parse_video(bytes[..end].to_vec().into()), parse_audio(bytes[..end].to_vec().into()));
            }
            for at in 0..bytes.len() {
                for flip in 1..=255 {
                    let mut flipped = bytes.to_vec();
                    flipped[at] ^= flip;
                    let flipped = Bytes::from(flipped);
                    let _ = (parse_video(flipped.clone()), parse_audio(flipped));
                }
            }
        }
    }
}
