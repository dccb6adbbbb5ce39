//! The body of a track message.
//!
//! | bytes | content |
//! | --- | --- |
//! | 1 | codec |
//! | 1 | bit 0: has B-frames; bit 1: codec string present; bit 2: number of reordered frames present |
//! | 2 + n | RFC 6381 codec string |
//! | 3 x 4 | video: width, height, reordered frames; audio: sample rate, channels, samples per frame |
//! | 4 + n | decoder configuration |

use bytes::{BufMut as _, BytesMut};

use super::error::MessageError;
use super::reader::FieldReader;
use crate::{AudioTrack, Codec, MAX_CONFIG_BYTES, MediaKind, Track, VideoTrack};

/// Real RFC 6381 codec strings are shorter than 40 bytes.
const MAX_CODEC_STRING_BYTES: usize = 128;

pub(super) fn write(track: &Track, b_frames: bool, out: &mut BytesMut) {
    let string = track.codec_string.as_deref().filter(|s| s.len() <= MAX_CODEC_STRING_BYTES);
    let reorder = track.video.and_then(|v| v.reorder_frames);
    out.put_u8(codec_code(track.codec));
    out.put_u8(u8::from(b_frames) | u8::from(string.is_some()) << 1 | u8::from(reorder.is_some()) << 2);
    let string = string.unwrap_or_default();
    out.put_u16(string.len() as u16);
    out.put_slice(string.as_bytes());
    let parameters = match (track.video, track.audio) {
        (Some(v), _) => [v.width, v.height, reorder.unwrap_or(0)],
        (None, Some(a)) => [a.sample_rate_hz, a.channels, a.samples_per_frame],
        (None, None) => [0; 3],
    };
    parameters.iter().for_each(|parameter| out.put_u32(*parameter));
    out.put_u32(track.config.len() as u32);
    out.put_slice(&track.config);
}

pub(super) fn read(body: &mut FieldReader) -> Result<(Track, bool), MessageError> {
    let codec = codec_from_code(body.u8()?)?;
    let flags = body.u8()?;
    let codec_string = Some(body.text(MAX_CODEC_STRING_BYTES)?).filter(|_| flags & 2 != 0);
    let parameters = [body.u32()?, body.u32()?, body.u32()?];
    let len = body.u32()? as usize;
    if len > MAX_CONFIG_BYTES {
        return Err(MessageError::TooLong { len, limit: MAX_CONFIG_BYTES });
    }
    // A copy, because the configuration is retained for hours and must not keep the record alive.
    let config = bytes::Bytes::copy_from_slice(&body.bytes(len)?);
    let video = VideoTrack {
        width: parameters[0],
        height: parameters[1],
        reorder_frames: (flags & 4 != 0).then_some(parameters[2]),
    };
    let audio = AudioTrack { sample_rate_hz: parameters[0], channels: parameters[1], samples_per_frame: parameters[2] };
    let is_video = codec.kind() == MediaKind::Video;
    let track =
        Track { codec, config, codec_string, video: is_video.then_some(video), audio: (!is_video).then_some(audio) };
    Ok((track, flags & 1 != 0))
}

const fn codec_code(codec: Codec) -> u8 {
    match codec {
        Codec::H264 => 1,
        Codec::H265 => 2,
        Codec::Av1 => 3,
        Codec::Aac => 16,
        Codec::Opus => 17,
    }
}

const fn codec_from_code(code: u8) -> Result<Codec, MessageError> {
    Ok(match code {
        1 => Codec::H264,
        2 => Codec::H265,
        3 => Codec::Av1,
        16 => Codec::Aac,
        17 => Codec::Opus,
        other => return Err(MessageError::Unknown { field: "codec", code: other }),
    })
}
