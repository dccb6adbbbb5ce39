//! Enhanced RTMP end to end: H.265, AV1 and Opus with their FourCCs, encoded by ffmpeg, published
//! by the test's RTMP client, and played over RTMP and HLS. (ffmpeg 5 and GStreamer 1.22 of Debian
//! 12 cannot publish Enhanced RTMP.)

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use headwater_tests::decode;
use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::ffmpeg_command;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::temp::TempDir;
use headwater_tests::wait::WAIT_TIMEOUT;

use crate::probe;

/// Two seconds of video. The encoder options set one key frame per second.
const VIDEO_INPUT: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2 -pix_fmt yuv420p";
const AUDIO_INPUT: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=2";
const RECORDING_MS: u32 = 2_000;
const MD5_DIGITS: usize = 32;

const H265_OPTIONS: &str =
    "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0:keyint=25:min-keyint=25:scenecut=0";
const AV1_OPTIONS: &str = "-c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -g 25 -keyint_min 25";

/// Body of an RTMP message with its kind and its timestamp.
#[derive(Debug, Clone)]
struct Message {
    audio: bool,
    ms: u32,
    body: Bytes,
}

/// Messages that a publisher sends, and hashes of what players must receive.
struct Recording {
    /// Sequence headers, video before audio.
    headers: Vec<Message>,
    messages: Vec<Message>,
    /// MD5 of every frame, decoded from the file.
    frame_hashes: Vec<String>,
    /// MD5 of every audio packet.
    audio_hashes: Vec<String>,
}

/// Encodes with ffmpeg's `options`, and wraps each packet of the file as Enhanced RTMP v2
/// specifies. Returns `None` if ffmpeg is not installed.
fn encode(options: &str, four_cc: &str, with_audio: bool) -> Option<Recording> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("recording.mp4");
    let mut command = ffmpeg_command()?;
    let tone = if with_audio { format!("{AUDIO_INPUT} -c:a libopus -ac 2") } else { String::new() };
    // ffmpeg requires all inputs before output options.
    let (input, output) = VIDEO_INPUT.split_at(VIDEO_INPUT.find(" -pix_fmt").unwrap());
    let (tone_input, tone_output) = tone.split_at(tone.find(" -c:a").unwrap_or(0));
    for part in [input, tone_input, output, options, tone_output] {
        command.args(part.split_whitespace());
    }
    let encoder = Process::start(command.arg("-y").arg(&file)).unwrap();
    assert!(encoder.wait_exit(2 * WAIT_TIMEOUT).unwrap().success(), "{:?}", encoder.lines());
    let bytes = Bytes::from(std::fs::read(&file).unwrap());
    let tag = |first: u8, body: &[u8]| Bytes::from([&[first][..], four_cc.as_bytes(), body].concat());
    let config = mp4_box(&bytes, if four_cc == "hvc1" { b"hvcC" } else { b"av1C" });
    let mut headers = vec![Message { audio: false, ms: 0, body: tag(0x90, &config) }];
    if with_audio {
        // RFC 7845 §5.1: one stream of two channels, pre-skip of 312 samples, 48 kHz.
        let head = [&b"OpusHead"[..], &[1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
        headers.push(Message { audio: true, ms: 0, body: [&b"\x90Opus"[..], &head].concat().into() });
    }
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "packet=stream_index,dts_time,size,pos,flags", "-of", "csv=p=0"]);
    let packets = command.arg(&file).output().unwrap();
    let mut messages: Vec<Message> = String::from_utf8(packets.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let [stream, seconds, size, position, flags] = *line.split(',').take(5).collect::<Vec<_>>() else {
                return None;
            };
            let (size, position): (usize, usize) = (size.parse().unwrap(), position.parse().unwrap());
            let data = bytes.slice(position..position + size);
            let (audio, key) = (stream == "1", flags.starts_with('K'));
            let body = match (audio, four_cc) {
                (true, _) => [&b"\x91Opus"[..], &data].concat().into(),
                // CodedFramesX for H.265, whose composition time is always 0 here; AV1 has none.
                (false, "hvc1") => tag(if key { 0x93 } else { 0xa3 }, &data),
                (false, _) => tag(if key { 0x91 } else { 0xa1 }, &data),
            };
            let ms = (seconds.parse::<f64>().unwrap().max(0.0) * 1_000.0).round() as u32;
            Some(Message { audio, ms, body })
        })
        .collect();
    messages.sort_by_key(|m| m.ms);
    let audio_hashes =
        if with_audio { frame_md5(&file.to_string_lossy(), &["-map", "0:a", "-c", "copy"]) } else { Vec::new() };
    Some(Recording { headers, messages, frame_hashes: decode::frame_hashes(&file).unwrap(), audio_hashes })
}

/// Decodes or copies `input` with ffmpeg; returns one MD5 per frame. Panics if ffmpeg fails, prints
/// anything else, or does not end.
fn frame_md5(input: &str, options: &[&str]) -> Vec<String> {
    let mut command = ffmpeg_command().unwrap();
    let ffmpeg = Process::start(command.args(["-i", input]).args(options).args(["-f", "framemd5", "-"])).unwrap();
    let exit = ffmpeg.wait_exit(2 * WAIT_TIMEOUT);
    let exit = exit.with_context(|| format!("{input} does not have what {options:?} selects")).unwrap();
    let lines = ffmpeg.lines();
    let hash = |line: &String| {
        // Preceded by stream, two times, duration and size; side data may follow.
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let is_row = fields.len() > 5 && fields[..5].iter().all(|field| field.parse::<i64>().is_ok());
        (is_row && fields[5].len() == MD5_DIGITS).then(|| fields[5].to_owned())
    };
    let hashes: Option<Vec<String>> = lines.iter().filter(|line| !line.starts_with('#')).map(hash).collect();
    hashes.filter(|_| exit.success()).unwrap_or_else(|| panic!("{input}: {exit}: {lines:#?}"))
}

/// Content of the first MP4 box of this type.
fn mp4_box(file: &Bytes, kind: &[u8; 4]) -> Bytes {
    let at = file.windows(4).position(|w| w == kind).unwrap();
    let size = u32::from_be_bytes(*file[at - 4..].first_chunk().unwrap()) as usize;
    file.slice(at + 4..at - 4 + size)
}

/// Publishes a recording in a loop, in real time, until dropped.
struct LoopingPublisher {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LoopingPublisher {
    fn start(engine: &Engine, id: &str, recording: &Recording) -> Self {
        let mut peer = RtmpClient::publisher(engine.rtmp(), id).unwrap();
        let (headers, messages) = (recording.headers.clone(), recording.messages.clone());
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::spawn(move || {
            let mut send = |ms: u32, m: &Message| match m.audio {
                true => peer.send_audio(ms, m.body.clone()).unwrap(),
                false => peer.send_video(ms, m.body.clone()).unwrap(),
            };
            headers.iter().for_each(|m| send(0, m));
            let start = Instant::now();
            for pass in 0.. {
                for message in &messages {
                    let ms = pass * RECORDING_MS + message.ms;
                    let due = start + Duration::from_millis(u64::from(ms));
                    let left = due.saturating_duration_since(Instant::now());
                    if stopped.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    send(ms, message);
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for LoopingPublisher {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            panic!("the publisher was disconnected");
        }
    }
}

/// Publishes a recording and checks that RTMP delivers the same bytes and HLS the same frames.
fn check_round_trip(options: &str, four_cc: &str, codec: (&str, &str), with_audio: bool) {
    let Some(recording) = encode(options, four_cc, with_audio) else { return };
    let engine = Engine::start(Options::default()).unwrap();
    let _publishing = LoopingPublisher::start(&engine, "demo", &recording);
    let status = engine.wait_status("live/demo", "its tracks", |s| {
        s.video.is_some() && s.audio.is_some() == with_audio && s.received_bytes > 0
    });
    let video = status.unwrap().video.unwrap();
    assert_eq!((video.codec.as_str(), video.width, video.height), (codec.0, 320, 180));
    assert!(video.codec_string.as_deref().is_some_and(|s| s.starts_with(four_cc)), "{:?}", video.codec_string);

    let mut player = RtmpClient::player(engine.rtmp(), "demo").unwrap();
    assert_eq!(player.next_video().unwrap().1, recording.headers[0].body, "the sequence header");
    let sent: Vec<&Bytes> = recording.messages.iter().filter(|m| !m.audio).map(|m| &m.body).collect();
    let positions: HashMap<&Bytes, usize> = sent.iter().enumerate().map(|(i, body)| (*body, i)).collect();
    assert_eq!(positions.len(), sent.len(), "two frames are identical");
    let first = player.next_video().unwrap().1;
    let start = *positions.get(&first).expect("received a frame that was not sent");
    assert_eq!(start % 25, 0, "the player begins at a key frame");
    for n in 1..60 {
        assert_eq!(player.next_video().unwrap().1, sent[(start + n) % sent.len()], "frame {n} after {start}");
    }

    if with_audio {
        let mut player = RtmpClient::player(engine.rtmp(), "demo").unwrap();
        assert_eq!(player.next_audio().unwrap().1, recording.headers[1].body, "the audio sequence header");
        let got: Vec<Bytes> = (0..50).map(|_| player.next_audio().unwrap().1).collect();
        let sent: Vec<Bytes> = recording.messages.iter().filter(|m| m.audio).map(|m| m.body.clone()).collect();
        assert!([&sent[..], &sent].concat().windows(50).any(|run| run == got), "received audio that was not sent");
    }

    let url = engine.http_url("/live/streams/demo.m3u8");
    let mut expected = vec![format!("{},video", codec.1)];
    if with_audio {
        expected.insert(0, "opus,audio".to_owned());
    }
    expected.sort();
    assert_eq!(probe::codecs(&url).unwrap(), expected);
    let count_unknown = |seen: &[String], expected: &[String]| {
        let expected: HashSet<&String> = expected.iter().collect();
        seen.iter().filter(|hash| !expected.contains(hash)).count()
    };
    let seen = frame_md5(&url, &["-an", "-frames:v", "60", "-fps_mode", "passthrough"]);
    let others = count_unknown(&seen, &recording.frame_hashes);
    assert_eq!((seen.len(), others), (60, 0), "video frames over HLS, and how many of them were not published");
    if with_audio {
        let packets = frame_md5(&url, &["-map", "0:a", "-c", "copy", "-frames:a", "100"]);
        let others = count_unknown(&packets, &recording.audio_hashes);
        assert_eq!(
            (packets.len(), others),
            (100, 0),
            "audio packets over HLS, and how many of them were not published"
        );
    }
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn h265_with_opus_is_unchanged_over_rtmp_and_hls() {
    check_round_trip(H265_OPTIONS, "hvc1", ("H265", "hevc"), true);
}

#[test]
fn av1_is_unchanged_over_rtmp_and_hls() {
    check_round_trip(AV1_OPTIONS, "av01", ("AV1", "av1"), false);
}
