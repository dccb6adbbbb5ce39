//! Tests that transcoding preserves frequency, level, length and time of audio encoded by ffmpeg.

use bytes::Bytes;
use headwater_wire::codec::aac::{self, AudioSpecificConfig};
use opus::Channels;

use super::*;
use crate::hub::{Hub, Limits};

/// Splits an ADTS file into frames as a gateway would.
fn frames(file: &'static [u8]) -> Vec<Frame> {
    let mut rest = Bytes::from_static(file);
    let mut track = None;
    let mut frames = Vec::new();
    while let Ok(head) = aac::Adts::parse(&rest) {
        let track = track.get_or_insert_with(|| {
            let config = AudioSpecificConfig::encode_lc(head.sample_rate_hz, head.channel_configuration).unwrap();
            Arc::new(aac::track(Bytes::copy_from_slice(&config)).unwrap())
        });
        let time = MediaTime::from_ticks(frames.len() as i64 * 1024, head.sample_rate_hz);
        let whole = rest.split_to(head.frame_bytes);
        let payload = whole.slice(head.header_bytes..);
        frames.push(Frame { track: Arc::clone(track), dts: time, pts: time, key: true, payload });
    }
    frames
}

/// Returns the decoded left channel and the time of the first packet.
fn decode(packets: &[Frame]) -> (Vec<f32>, MediaTime) {
    let mut decoder = ::opus::Decoder::new(48_000, Channels::Stereo).unwrap();
    let mut left = Vec::new();
    for packet in packets {
        let mut pcm = [0.0; 2 * 5_760];
        let n = decoder.decode_float(&packet.payload, &mut pcm, false).unwrap();
        left.extend(pcm[..2 * n].iter().step_by(2));
    }
    (left, packets[0].pts)
}

fn transcode(frames: &[Frame]) -> Vec<Frame> {
    let mut pipeline = AacToOpus::new(Arc::clone(&frames[0].track)).unwrap();
    frames.iter().flat_map(|frame| pipeline.push(frame).unwrap().collect::<Vec<_>>()).collect()
}

fn level(signal: &[f32], hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, s) in signal.iter().enumerate() {
        let angle = std::f64::consts::TAU * hz * n as f64 / 48_000.0;
        re += f64::from(*s) * angle.cos();
        im += f64::from(*s) * angle.sin();
    }
    2.0 * re.hypot(im) / signal.len() as f64
}

fn check(file: &'static [u8], level_expected: f64) {
    let frames = frames(file);
    let packets = transcode(&frames);
    let (left, begin) = decode(&packets);
    let middle = &left[24_000..72_000];
    let at_440 = level(middle, 440.0);
    assert!((at_440 / level_expected - 1.0).abs() < 0.05, "level at 440 Hz is {at_440}");
    assert!(level(middle, 880.0) < 0.01 && level(middle, 220.0) < 0.01);
    let last = &frames[frames.len() - 1];
    let due = last.pts + MediaTime::from_ticks(1024, last.track.audio.unwrap().sample_rate_hz);
    let got = begin + MediaTime::from_ticks(left.len() as i64, 48_000);
    assert!((due - got).as_ms().abs() <= 30, "audio ends at {} ms instead of {} ms", got.as_ms(), due.as_ms());
}

/// ffmpeg's sine has 1/8 of full scale, and the files were made 12 dB louder; ffmpeg converts mono
/// to stereo at -3 dB.
const MONO_LEVEL: f64 = 0.5;
const STEREO_LEVEL: f64 = 0.5 * std::f64::consts::FRAC_1_SQRT_2;

#[test]
fn tone_at_44100_hz_mono_keeps_pitch_level_and_length() {
    check(include_bytes!("../../../../tests/data/sine440-44100-1.aac"), MONO_LEVEL);
}

#[test]
fn tone_at_48000_hz_stereo_keeps_pitch_level_and_length() {
    check(include_bytes!("../../../../tests/data/sine440-48000-2.aac"), STEREO_LEVEL);
}

#[test]
fn tone_at_22050_hz_stereo_keeps_pitch_level_and_length() {
    check(include_bytes!("../../../../tests/data/sine440-22050-2.aac"), STEREO_LEVEL);
}

#[test]
fn gap_in_the_source_becomes_a_gap_in_the_rendition() {
    let mut frames = frames(include_bytes!("../../../../tests/data/sine440-48000-2.aac"));
    let half = frames.len() / 2;
    for frame in &mut frames[half..] {
        frame.pts = frame.pts + MediaTime::from_ms(5_000);
    }
    let packets = transcode(&frames);
    let widest = packets.windows(2).map(|w| (w[1].pts - w[0].pts).as_ms()).max().unwrap();
    assert!((5_000..5_100).contains(&widest), "widest step {widest} ms");
}

#[test]
fn corrupt_packets_become_gaps_and_never_panic() {
    let mut frames = frames(include_bytes!("../../../../tests/data/sine440-48000-2.aac"));
    for (n, frame) in frames.iter_mut().enumerate() {
        let mut bytes = frame.payload.to_vec();
        let at = (n * 7_919) % bytes.len();
        bytes[at] ^= 1 << (n % 8);
        bytes.truncate(bytes.len() - n % 3);
        frame.payload = bytes.into();
    }
    let _ = transcode(&frames);
}

#[test]
fn he_aac_is_refused_with_a_reason() {
    // AudioSpecificConfig of HE-AAC, object type 5, 44.1 kHz out of 22.05 kHz, stereo.
    let track = aac::track(Bytes::from_static(&[0x2b, 0x92, 0x08, 0x00])).unwrap();
    let reason = AacToOpus::new(Arc::new(track)).err().unwrap();
    assert!(reason.contains("AAC-LC"), "{reason}");
}

#[tokio::test]
async fn notice_of_surround_sound_names_the_channels_and_not_the_codec() {
    let hub = Hub::with_transcoder(Limits::default(), Some(Box::new(AudioTranscoder)));
    let name = headwater_api::StreamName::new("live", "a").unwrap();
    let mut producer = hub.publish(&name, "test").unwrap();
    // AudioSpecificConfig of AAC-LC, 48 kHz, 5.1.
    let config = AudioSpecificConfig::encode_lc(48_000, 6).unwrap();
    let track = Arc::new(aac::track(Bytes::copy_from_slice(&config)).unwrap());
    let time = MediaTime::ZERO;
    producer.send(Frame { track, dts: time, pts: time, key: true, payload: Bytes::from_static(&[0]) });
    assert!(hub.rendition(producer.stream(), Codec::Opus).is_err());
    let notices = producer.stream().status().notices;
    let message = "WebRTC viewers receive no audio: the audio has 6 channels; set the encoder to stereo.";
    assert_eq!(notices.iter().map(|n| n.message.as_str()).collect::<Vec<_>>(), [message]);
}

#[tokio::test(start_paused = true)]
async fn rendition_is_created_once_and_ends_without_consumers() {
    let hub = Hub::with_transcoder(Limits::default(), Some(Box::new(AudioTranscoder)));
    let name = headwater_api::StreamName::new("live", "a").unwrap();
    let mut producer = hub.publish(&name, "test").unwrap();
    let frames = frames(include_bytes!("../../../../tests/data/sine440-48000-2.aac"));
    frames[..10].iter().for_each(|frame| producer.send(frame.clone()));
    let source = Arc::clone(producer.stream());
    let rendition = hub.rendition(&source, Codec::Opus).unwrap();
    assert!(Arc::ptr_eq(&rendition, &hub.rendition(&source, Codec::Opus).unwrap()));
    let mut reader = rendition.consumer();
    assert_eq!(reader.next().await.unwrap().frame.track.codec, Codec::Opus);
    drop(reader);
    rendition.ended().await;
    assert!(!Arc::ptr_eq(&rendition, &hub.rendition(&source, Codec::Opus).unwrap()));
}
