//! What becomes of a publisher's messages.

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
        Some(Media::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

fn sound(ingest: &mut Ingest, ms: u32) -> Frame {
    frame(ingest, message(kind::AUDIO, ms, &[&[0xaf, 1, 0x21]]))
}

fn picture(ingest: &mut Ingest, ms: u32) -> Frame {
    frame(ingest, message(kind::VIDEO, ms, &[&[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41]]))
}

#[test]
fn a_picture_has_its_times_its_key_flag_and_bare_nal_units() {
    let mut ingest = publisher();
    let got = frame(&mut ingest, message(kind::VIDEO, 700, &[&[0x17, 1, 0, 0, 66, 0, 0, 0, 1, 0x65]]));
    assert_eq!((got.dts.as_ms(), got.pts.as_ms(), got.key), (0, 66, true));
    assert_eq!(got.payload[..], [0, 0, 0, 1, 0x65]);
    assert_eq!(picture(&mut ingest, 733).dts.as_ms(), 33);
}

#[test]
fn sound_is_numbered_by_samples_and_resynchronised_beyond_50_ms() {
    let mut ingest = publisher();
    for n in 0..2_000 {
        let exact = MediaTime::from_ticks(n * 1024, 44_100);
        assert_eq!(sound(&mut ingest, exact.as_ms() as u32).dts, exact);
    }
    let exact = MediaTime::from_ticks(2_000 * 1024, 44_100);
    assert_eq!(sound(&mut ingest, exact.as_ms() as u32 + 50).dts, exact);
    let late = exact.as_ms() as u32 + 24 + 52;
    assert_eq!(sound(&mut ingest, late).dts, MediaTime::from_ms(i64::from(late)));
}

#[test]
fn time_goes_on_past_the_wrap() {
    let mut ingest = publisher();
    assert_eq!(picture(&mut ingest, u32::MAX - 9).dts.as_ms(), 0);
    assert_eq!(picture(&mut ingest, 23).dts.as_ms(), 33);
}

#[test]
fn time_never_decreases_even_if_the_publisher_starts_its_clock_again() {
    let mut ingest = publisher();
    assert_eq!(picture(&mut ingest, 100_000).dts.as_ms(), 0);
    assert_eq!(picture(&mut ingest, 110_000).dts.as_ms(), 10_000);
    assert_eq!(picture(&mut ingest, 109_990).dts.as_ms(), 10_000, "a small step back");
    assert_eq!(picture(&mut ingest, 5).dts.as_ms(), 10_000, "another clock");
    assert_eq!(picture(&mut ingest, 38).dts.as_ms(), 10_023);
}

#[test]
fn a_repeated_header_is_no_news_and_another_one_is() {
    let mut ingest = publisher();
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0x12, 0x10]])).unwrap().is_none());
    let other = ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0x11, 0x90]])).unwrap();
    assert!(matches!(other, Some(Media::Track(t)) if t.audio.unwrap().sample_rate_hz == 48_000));
}

#[test]
fn frames_before_their_header_are_left_out() {
    let mut ingest = Ingest::default();
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 1, 0x21]])).unwrap().is_none());
    assert!(ingest.on_message(message(kind::AUDIO, 0, &[&[0xaf, 0, 0xff]])).is_err());
}
