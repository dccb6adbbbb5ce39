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

#[test]
fn missing_header_is_reported_once() {
    for (kind, body, codec) in [(kind::AUDIO, &[0xaf, 1, 0x21][..], Codec::Aac), (kind::VIDEO, KEY_FRAME, Codec::H264)]
    {
        let mut ingest = Ingest::default();
        let results: Vec<_> = (0..100).map(|n| ingest.on_message(message(kind, n * 20, &[body]))).collect();
        assert!(results.iter().all(|r| !matches!(r, Ok(Some(_)))));
        let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(errors, [IngestError::NoConfig { codec }]);
    }
}

const KEY_FRAME: &[u8] = &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65];
/// Baseline, without VUI: no reordering (ITU-T H.264 §A.2.1).
const BASELINE_SPS: &[u8] = &[0x67, 66, 0, 31, 0xda, 0x01, 0x40, 0x16, 0xe4];

/// A publisher whose video has this SPS.
fn publisher_with_sps(sps: &'static [u8]) -> Ingest {
    let config =
        h264::DecoderConfig::from_parameter_sets(Bytes::from_static(sps), Bytes::from_static(&[0x68])).unwrap();
    let mut ingest = Ingest::default();
    ingest.on_message(message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &config.encode()])).unwrap().unwrap();
    ingest
}

fn video_frame_with_composition(ingest: &mut Ingest, ms: u32, composition_ms: i32) -> Frame {
    let [_, composition @ ..] = composition_ms.to_be_bytes();
    frame(ingest, message(kind::VIDEO, ms, &[&[0x27, 1], &composition, &[0, 0, 0, 1, 0x41]]))
}

#[test]
fn composition_times_of_a_stream_without_reordering_only_shift_it() {
    let mut ingest = publisher_with_sps(BASELINE_SPS);
    for n in 0..300_u32 {
        let composition_ms = if n / 100 == 1 { -34 } else { 40 };
        let got = video_frame_with_composition(&mut ingest, n * 33, composition_ms);
        assert_eq!(got.dts, got.pts);
        let exact = i64::from(n) * 33 + i64::from(composition_ms);
        assert!((exact..exact + 80).contains(&got.pts.as_ms()), "{got:?}");
    }
    let mut ingest = publisher();
    let got = video_frame_with_composition(&mut ingest, 0, 66);
    assert_eq!((got.dts.as_ms(), got.pts.as_ms()), (0, 66), "a stream that may be reordered");
}

#[test]
fn composition_time_of_more_than_ten_seconds_is_ignored() {
    for mut ingest in [publisher_with_sps(BASELINE_SPS), publisher()] {
        let got = video_frame_with_composition(&mut ingest, 0, 8_000_000);
        assert_eq!((got.dts.as_ms(), got.pts.as_ms()), (0, 0));
    }
}

#[test]
fn media_time_passes_at_the_rate_of_two_clocks_that_are_1500_ms_apart() {
    let mut ingest = publisher();
    let (mut video, mut audio) = (Vec::new(), Vec::new());
    for n in 0..600_u32 {
        video.push(video_frame(&mut ingest, n * 33 + 1_500).dts.as_ms());
        let body = message(kind::AUDIO, n * 33, &[&[0xaf, 1, 0x21]]);
        if let Some(IngestOutput::Frame(frame)) = ingest.on_message(body).unwrap() {
            audio.push(frame.dts.as_ms());
        }
    }
    assert_eq!(video, (0..600).map(|n| n * 33).collect::<Vec<i64>>());
    // What is before the first frame of the stream has no place on its timeline.
    assert_eq!(audio.len(), 600 - 46);
    assert!(audio.iter().zip(46..).all(|(&got, n)| (got - (n * 33 - 1_500)).abs() <= 50), "{audio:?}");
}

#[test]
fn video_before_the_origin_begins_at_a_key_frame() {
    let mut ingest = publisher();
    audio_frame(&mut ingest, 5_000);
    for (ms, key, expect) in
        [(3_990, true, None), (4_023, false, None), (4_056, true, Some(0)), (5_033, false, Some(33))]
    {
        let body = [&[if key { 0x17 } else { 0x27 }][..], &KEY_FRAME[1..]].concat();
        let got = match ingest.on_message(message(kind::VIDEO, ms, &[&body])).unwrap() {
            Some(IngestOutput::Frame(frame)) => Some(frame.dts.as_ms()),
            _ => None,
        };
        assert_eq!(got, expect, "{ms}");
    }
}

#[test]
fn timestamp_far_ahead_moves_time_by_no_frame() {
    let mut ingest = publisher();
    assert_eq!(video_frame(&mut ingest, 0).dts.as_ms(), 0);
    audio_frame(&mut ingest, 10);
    assert_eq!(video_frame(&mut ingest, 33).dts.as_ms(), 33);
    assert_eq!(video_frame(&mut ingest, 0x7fff_fff0).dts.as_ms(), 33);
    assert_eq!(video_frame(&mut ingest, 99).dts.as_ms(), 99, "the audio confirms the old timestamps");
}

#[test]
fn empty_nal_units_are_not_passed_on() {
    let mut ingest = publisher();
    let body = [&[0x17, 1, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 2, 0x65, 9, 0, 0, 0, 0]].concat();
    assert_eq!(frame(&mut ingest, message(kind::VIDEO, 0, &[&body])).payload[..], [0, 0, 0, 2, 0x65, 9]);
    let empty = message(kind::VIDEO, 33, &[&[0x27, 1, 0, 0, 0, 0, 0, 0, 0]]);
    assert!(ingest.on_message(empty).unwrap().is_none());
}

#[test]
fn configuration_may_have_64_kib_and_no_more() {
    for (bytes, allowed) in [(MAX_CONFIG_BYTES, true), (MAX_CONFIG_BYTES + 1, false)] {
        let mut record = AVCC.to_vec();
        record.resize(bytes, 0); // bytes after the parameter sets are ignored
        let result = Ingest::default().on_message(message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &record]));
        assert_eq!(result.is_ok(), allowed, "{result:?}");
    }
    assert_eq!(MAX_CONFIG_BYTES, 64 << 10);
}

#[test]
fn frame_that_no_message_can_hold_is_dropped_and_the_next_one_is_a_key_frame() {
    let mut ingest = publisher();
    // One byte per length: rewritten with four bytes each, the payload is longer than a message.
    let mut record = AVCC.to_vec();
    record[4] = 0xfc;
    ingest.on_message(message(kind::VIDEO, 0, &[&[0x17, 0, 0, 0, 0], &record])).unwrap().unwrap();
    let units = [1, 0x41].repeat(MAX_FRAME_BYTES / 5 + 1);
    let error = ingest.on_message(message(kind::VIDEO, 0, &[&[0x27, 1, 0, 0, 0], &units])).unwrap_err();
    assert!(matches!(error, IngestError::FrameTooLong { .. }), "{error:?}");
    assert!(ingest.on_message(message(kind::VIDEO, 33, &[&[0x27, 1, 0, 0, 0, 1, 0x41]])).unwrap().is_none());
    assert!(ingest.on_message(message(kind::VIDEO, 66, &[&[0x17, 1, 0, 0, 0, 1, 0x65]])).unwrap().is_some());
}

/// An ADTS frame of AAC-LC, 48 kHz, stereo.
fn adts(payload: &[u8]) -> Vec<u8> {
    let config = aac::AudioSpecificConfig::parse(&[0x11, 0x90]).unwrap();
    [&aac::Adts::encode(&config, payload.len()).unwrap()[..], payload].concat()
}

#[test]
fn aac_configuration_is_taken_from_adts_headers() {
    let mut ingest = Ingest::default();
    let first = frame(&mut ingest, message(kind::AUDIO, 0, &[&[0xaf, 1], &adts(&[0x21, 7])]));
    assert_eq!((&first.payload[..], &first.track.config[..]), (&[0x21, 7][..], &[0x11, 0x90][..]));
    let second = frame(&mut ingest, message(kind::AUDIO, 21, &[&[0xaf, 1], &adts(&[0x21, 8])]));
    assert!(Arc::ptr_eq(&first.track, &second.track));
    let two = [adts(&[0x21]), adts(&[0x21])].concat();
    assert_eq!(ingest.on_message(message(kind::AUDIO, 42, &[&[0xaf, 1], &two])).unwrap_err(), IngestError::Adts);
}

#[test]
fn adts_header_is_removed_and_a_configuration_of_the_publisher_stays() {
    let mut ingest = publisher();
    let got = frame(&mut ingest, message(kind::AUDIO, 0, &[&[0xaf, 1], &adts(&[0x21, 7])]));
    assert_eq!((&got.payload[..], &got.track.config[..]), (&[0x21, 7][..], &[0x12, 0x10][..]));
}
