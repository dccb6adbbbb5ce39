//! Tests of the conversion from messages to frames.

use super::*;
use crate::codec::h264::tests::AVCC;

fn message(kind: u8, timestamp_ms: u32, parts: &[&[u8]]) -> Message {
    Message { kind, stream: 1, timestamp_ms, payload: parts.concat().into() }
}

fn publisher() -> Ingest {
    let mut ingest = Ingest::default();
    ingest.on_message(message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], AVCC])).unwrap().unwrap();
    ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0x12, 0x10]])).unwrap().unwrap();
    ingest
}

fn frame(ingest: &mut Ingest, message: Message) -> Frame {
    match ingest.on_message(message).unwrap() {
        Some(IngestOutput::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

fn audio_frame(ingest: &mut Ingest, ms: u32) -> Frame {
    frame(ingest, message(kind::AUDIO, ms, &[&[0xaf, 1, 0x21]]))
}

fn video_frame(ingest: &mut Ingest, ms: u32) -> Frame {
    frame(ingest, message(kind::VIDEO, ms, &[&[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41]]))
}

#[test]
fn video_frame_has_times_key_flag_and_nal_units_without_tag_header() {
    let mut ingest = publisher();
    let got = frame(&mut ingest, message(kind::VIDEO, 700, &[&[0x17, 1, 0, 0, 66, 0, 0, 0, 1, 0x65]]));
    assert_eq!((got.dts.as_ms(), got.pts.as_ms(), got.key), (0, 66, true));
    assert_eq!(got.payload[..], [0, 0, 0, 1, 0x65]);
    assert_eq!(video_frame(&mut ingest, 733).dts.as_ms(), 33);
}

#[test]
fn audio_is_timed_by_samples_and_resynchronized_beyond_50_ms() {
    let mut ingest = publisher();
    for n in 0..2_000 {
        let exact = MediaTime::from_ticks(n * 1024, 44_100);
        assert_eq!(audio_frame(&mut ingest, exact.as_ms() as u32).dts, exact);
    }
    let exact = MediaTime::from_ticks(2_000 * 1024, 44_100);
    assert_eq!(audio_frame(&mut ingest, exact.as_ms() as u32 + 50).dts, exact);
    let late = exact.as_ms() as u32 + 24 + 52;
    assert_eq!(audio_frame(&mut ingest, late).dts, MediaTime::from_ms(i64::from(late)));
}

#[test]
fn timeline_continues_past_the_timestamp_wrap() {
    let mut ingest = publisher();
    assert_eq!(video_frame(&mut ingest, u32::MAX - 9).dts.as_ms(), 0);
    assert_eq!(video_frame(&mut ingest, 23).dts.as_ms(), 33);
}

#[test]
fn time_never_decreases_even_if_timestamps_restart() {
    let mut ingest = publisher();
    assert_eq!(video_frame(&mut ingest, 100_000).dts.as_ms(), 0);
    assert_eq!(video_frame(&mut ingest, 110_000).dts.as_ms(), 10_000);
    assert_eq!(video_frame(&mut ingest, 109_990).dts.as_ms(), 10_000, "a small step back");
    assert_eq!(video_frame(&mut ingest, 5).dts.as_ms(), 10_000, "restarted timestamps");
    assert_eq!(video_frame(&mut ingest, 38).dts.as_ms(), 10_023);
}

#[test]
fn repeated_header_is_ignored_and_a_changed_one_is_reported() {
    let mut ingest = publisher();
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0x12, 0x10]])).unwrap().is_none());
    let other = ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0x11, 0x90]])).unwrap();
    assert!(matches!(other, Some(IngestOutput::Track(t)) if t.audio.unwrap().sample_rate_hz == 48_000));
}

#[test]
fn frames_before_their_header_are_dropped() {
    let mut ingest = Ingest::default();
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 1, 0x21]])).unwrap().is_none());
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0xff]])).is_err());
}
