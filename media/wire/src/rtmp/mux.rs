//! Converts frames to RTMP bytes that are identical for every player of a stream.

use bytes::BytesMut;

use super::amf0::{self, Value};
use super::message::{self, kind};
use super::tag;
use crate::{Codec, Frame, MediaTime, Track};

/// The message stream id of every player, so that the bytes can be shared.
pub const PLAY_STREAM: u32 = 1;

/// Appends the messages that a player needs before the first frame: `onMetaData` and the decoder
/// configurations.
pub fn write_header(out: &mut BytesMut, tracks: &[&Track], at: MediaTime) {
    let timestamp_ms = timestamp(at);
    let metadata = amf0::encode(&["onMetaData".into(), metadata(tracks)]);
    // Always at time zero: ffmpeg treats later metadata as a subtitle track.
    message::write(out, kind::DATA_AMF0, PLAY_STREAM, 0, &metadata, &[]);
    for track in tracks {
        let head = tag::config_header(track.codec);
        message::write(out, message_kind(track.codec), PLAY_STREAM, timestamp_ms, head.as_slice(), &track.config);
    }
}

/// Appends one frame.
pub fn write_frame(out: &mut BytesMut, frame: &Frame) {
    let codec = frame.track.codec;
    let timestamp_ms = timestamp(frame.dts);
    // The difference of the rounded times, so that the player's sum is exactly the rounded pts.
    let composition_ms = timestamp(frame.pts).wrapping_sub(timestamp_ms).cast_signed();
    let head = tag::frame_header(codec, frame.key, composition_ms);
    message::write(out, message_kind(codec), PLAY_STREAM, timestamp_ms, head.as_slice(), &frame.payload);
}

fn message_kind(codec: Codec) -> u8 {
    match codec {
        Codec::Aac | Codec::Opus => kind::AUDIO,
        _ => kind::VIDEO,
    }
}

/// Returns the RTMP timestamp: milliseconds modulo 2^32. Audio that begins slightly before time
/// zero gets timestamp 0.
fn timestamp(time: MediaTime) -> u32 {
    match time.as_ms() {
        -10_000..0 => 0,
        ms => ms as u32,
    }
}

fn metadata(tracks: &[&Track]) -> Value {
    let mut out: Vec<(String, Value)> = Vec::new();
    let mut put = |name: &str, value: Value| out.push((name.to_owned(), value));
    put("server", concat!("headwater/", env!("CARGO_PKG_VERSION")).into());
    for track in tracks {
        if let Some(video) = track.video {
            if video.width > 0 && video.height > 0 {
                put("width", f64::from(video.width).into());
                put("height", f64::from(video.height).into());
            }
            put("videocodecid", codec_id(track.codec).into());
        }
        if let Some(audio) = track.audio {
            put("audiocodecid", codec_id(track.codec).into());
            put("audiosamplerate", f64::from(audio.sample_rate_hz).into());
            put("audiosamplesize", 16.0.into());
            put("audiochannels", f64::from(audio.channels).into());
            put("stereo", Value::Boolean(audio.channels >= 2));
        }
    }
    Value::EcmaArray(out)
}

/// Returns the codec id for `onMetaData`: the number of FLV 10.1 §E.4, or the FourCC as a number
/// (Enhanced RTMP v2, "Metadata frame").
fn codec_id(codec: Codec) -> f64 {
    let four_cc = |name: &[u8; 4]| f64::from(u32::from_be_bytes(*name));
    match codec {
        Codec::H264 => 7.0,
        Codec::H265 => four_cc(b"hvc1"),
        Codec::Av1 => four_cc(b"av01"),
        Codec::Aac => 10.0,
        Codec::Opus => four_cc(b"Opus"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::codec::h264;
    use crate::rtmp::chunk::ChunkReader;
    use crate::rtmp::ingest::{Ingest, IngestOutput};

    #[test]
    fn written_header_and_frame_round_trip_through_ingest() {
        let record = Bytes::from_static(h264::tests::AVCC);
        let track = Arc::new(h264::track(record).unwrap());
        let frame = Frame {
            track: Arc::clone(&track),
            dts: MediaTime::from_ms(5_000),
            pts: MediaTime::from_ms(5_066),
            key: true,
            payload: Bytes::from_static(&[0, 0, 0, 1, 0x65]),
        };
        let mut bytes = BytesMut::from(&[2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0xea, 0x60][..]);
        write_header(&mut bytes, &[&track], frame.dts);
        write_frame(&mut bytes, &frame);
        let (mut reader, mut ingest, mut media) = (ChunkReader::default(), Ingest::default(), Vec::new());
        let mut input = &bytes[..];
        while let Some(message) = reader.next(&mut input).unwrap() {
            media.extend(ingest.on_message(message).unwrap());
        }
        let [IngestOutput::Track(got_track), IngestOutput::Frame(got)] = &media[..] else { panic!("{media:?}") };
        assert_eq!(**got_track, *track);
        assert_eq!((got.pts - got.dts, got.key, &got.payload), (MediaTime::from_ms(66), true, &frame.payload));
    }
}
