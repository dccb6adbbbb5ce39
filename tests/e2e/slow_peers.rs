//! Peers that read slowly or not at all, stop sending, or become unreachable. The tests run with
//! the default limits.

use std::process::Command;

use bytes::Bytes;
use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{Source, ffmpeg_command};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::tools;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use nix::sys::signal::Signal;

use crate::hostile::with_running_stream;

/// Frames from one key frame to the next.
const GOP_FRAMES: u32 = 4;
/// Size of a large frame; a few dozen fill the buffers of any socket.
const LARGE_FRAME_BYTES: usize = 250_000;

/// An H.264 publisher whose frames contain only their number and padding.
struct NumberedPublisher {
    peer: RtmpClient,
    sent: u32,
}

impl NumberedPublisher {
    fn start(engine: &Engine, id: &str) -> Self {
        let mut peer = RtmpClient::publisher(engine.rtmp(), id).unwrap();
        let sps = [0x67, 66, 0, 31];
        let record = [&[1, 66, 0, 31, 0xff, 0xe1, 0, 4][..], &sps, &[1, 0, 1, 0x68]].concat();
        peer.send_video(0, [&[0x17, 0, 0, 0, 0][..], &record].concat().into()).unwrap();
        Self { peer, sent: 0 }
    }

    /// Sends the next frame, about `bytes` long, and returns its number.
    fn send(&mut self, bytes: usize) -> u32 {
        let number = self.sent;
        self.sent += 1;
        let (tag, nal) = if number.is_multiple_of(GOP_FRAMES) { (0x17, 0x65) } else { (0x27, 0x41) };
        let unit = [&[nal][..], &number.to_be_bytes(), &vec![0xaa; bytes]].concat();
        let body = [&[tag, 1, 0, 0, 0][..], &(unit.len() as u32).to_be_bytes(), &unit].concat();
        self.peer.send_video(number * 40, Bytes::from(body)).unwrap();
        number
    }
}

/// Reads the number of the next frame; skips decoder configurations.
fn next_number(player: &mut RtmpClient) -> u32 {
    loop {
        let (_, body) = player.next_video().unwrap();
        if body[1] == 1 {
            return u32::from_be_bytes(*body[10..].first_chunk().unwrap());
        }
    }
}

#[test]
fn player_that_never_reads_is_closed_and_another_gets_every_frame() {
    let engine = Engine::start(Options::default()).unwrap();
    let mut publisher = NumberedPublisher::start(&engine, "demo");
    publisher.send(LARGE_FRAME_BYTES);
    let stuck = RtmpClient::player_with_small_buffer(engine.rtmp(), "demo").unwrap();
    let mut viewer = RtmpClient::player(engine.rtmp(), "demo").unwrap();
    assert_eq!(next_number(&mut viewer), 0);
    for _ in 0..80 {
        let sent = publisher.send(LARGE_FRAME_BYTES);
        assert_eq!(next_number(&mut viewer), sent, "the other viewer lost a frame within the first 20 MB");
    }
    wait::until("the stuck player to be closed", || {
        let sent = publisher.send(10);
        assert_eq!(next_number(&mut viewer), sent, "the other viewer lost a frame");
        engine.process().lines().iter().any(|l| l.contains("the peer did not read for 10 s")).then_some(())
    })
    .unwrap();
    engine.wait_status("live/demo", "one player left", |s| s.viewers.rtmp == 1).unwrap();
    stuck.wait_closed().unwrap();
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn slow_player_resumes_at_key_frames_and_another_gets_every_frame() {
    let engine = Engine::start(Options::default()).unwrap();
    let mut publisher = NumberedPublisher::start(&engine, "demo");
    publisher.send(LARGE_FRAME_BYTES);
    let mut slow = RtmpClient::player_with_small_buffer(engine.rtmp(), "demo").unwrap();
    let mut viewer = RtmpClient::player(engine.rtmp(), "demo").unwrap();
    assert_eq!((next_number(&mut slow), next_number(&mut viewer)), (0, 0));
    let (mut last, mut gaps) = (0, 0);
    // Reads one frame for every eight sent, then all remaining ones.
    for n in 1..=480 {
        let sent = publisher.send(LARGE_FRAME_BYTES / 2);
        assert_eq!(next_number(&mut viewer), sent, "the other viewer lost a frame");
        if n % 8 == 0 {
            gaps += read_and_count_gap(&mut slow, &mut last);
        }
    }
    while last < 480 {
        gaps += read_and_count_gap(&mut slow, &mut last);
    }
    assert!(gaps >= 1, "no frame was skipped: the test sends too little");
    assert_eq!(engine.status("live/demo").unwrap().unwrap().viewers.rtmp, 2, "the slow player was closed");
}

/// Reads one frame, which must be the next one or a later key frame. Returns 1 if it follows a gap.
fn read_and_count_gap(player: &mut RtmpClient, last: &mut u32) -> u32 {
    let number = next_number(player);
    let gap = number != *last + 1;
    assert!(
        !gap || (number > *last && number.is_multiple_of(GOP_FRAMES)),
        "resumes at {number} after {last}, which is not a key frame"
    );
    *last = number;
    u32::from(gap)
}

#[test]
fn silent_publisher_times_out_and_its_name_is_free_again() {
    with_running_stream(|engine| {
        let mut publisher = NumberedPublisher::start(engine, "silent");
        publisher.send(10);
        let refusal = RtmpClient::publisher(engine.rtmp(), "silent").unwrap_err();
        assert!(format!("{refusal:#}").contains("NetStream.Publish.BadName"), "{refusal:#}");
        engine.process().wait_line("the publisher was silent for 10 s").unwrap();
        engine.wait_ended("live/silent").unwrap();
        publisher.peer.wait_closed().unwrap();
        let mut again = NumberedPublisher::start(engine, "silent");
        again.send(10);
        engine.wait_status("live/silent", "a new publisher", |s| s.video.is_some()).unwrap();
    });
}

/// Start of a command line that runs a program as root of its own network namespace with loopback
/// up.
const NAMESPACE_COMMAND: &[&str] =
    &["unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];

#[test]
fn unreachable_publisher_times_out_and_its_name_is_free_again() {
    let can = Command::new(NAMESPACE_COMMAND[0]).args(&NAMESPACE_COMMAND[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        return tools::skip_missing("a network namespace cannot be created here");
    }
    let (Some(_), Some(_)) = (tools::find_program("ffmpeg"), tools::find_program("nft")) else { return };
    let command_prefix = NAMESPACE_COMMAND.iter().map(|s| (*s).to_owned()).collect();
    let engine = Engine::start(Options { command_prefix, ..Options::default() }).unwrap();
    let pid = engine.process().pid().to_string();
    let enter = || {
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--user", "--net", "--preserve-credentials", "--"]);
        command
    };
    let nft = |rules: &str| assert!(enter().args(["nft", rules]).status().unwrap().success(), "nft {rules}");
    let publish = || {
        let ffmpeg = ffmpeg_command().unwrap();
        let mut command = enter();
        command.arg(ffmpeg.get_program()).args(ffmpeg.get_args()).args(Source::default().ffmpeg_arguments());
        command.args(["-f", "flv", &engine.rtmp_url("live/demo")]);
        Process::start(&mut command).unwrap()
    };
    let first = publish();
    engine.process().wait_line("track announced stream=live/demo").unwrap();
    // The network fails, and the publisher is killed behind it.
    let port = engine.rtmp().port();
    nft(&format!(
        "add table inet walls; add chain inet walls in {{ type filter hook input priority 0; }}; \
         add rule inet walls in tcp dport {port} drop; add rule inet walls in tcp sport {port} drop"
    ));
    first.signal(Signal::SIGKILL);
    first.wait_exit(WAIT_TIMEOUT).unwrap();
    let closed = engine.process().wait_line("rtmp connection closed").unwrap();
    assert!(closed.contains("the publisher was silent for 10 s"), "{closed}");
    nft("delete table inet walls");
    let before = engine.process().lines().len();
    let _second = publish();
    engine.process().wait_line_from(before, "publish accepted").unwrap();
    assert_eq!(engine.panics(), [""; 0]);
}
