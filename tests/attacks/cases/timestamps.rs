//! A publisher whose timestamps jump to the end of the signed range, where sums overflow and
//! durations become weeks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::{http, wait};

use super::decoder_configuration::avc_header;
use crate::attacker::{attacker, connect_from};
use crate::node::Node;
use crate::target::{Setup, Target};

/// The longest segment that a playlist may announce, in seconds.
const MAX_TARGET_DURATION: u64 = 60;

/// Body of an H.264 key frame (Video File Format Specification 10.1, §E.4.3.1).
fn key_frame() -> Bytes {
    let unit = [&[0x65][..], &[0xaa; 400]].concat();
    [&[0x17, 1, 0, 0, 0][..], &(unit.len() as u32).to_be_bytes(), &unit].concat().into()
}

/// Sends media in real time, a key frame every 200 ms, until `stop` or for 30 s. The timestamps
/// jump after two seconds.
fn publish(node: &Node, stop: &AtomicBool) -> anyhow::Result<()> {
    const JUMP_MS: u32 = 0x7fff_fff0;
    let socket = connect_from(attacker(0), node.rtmp())?;
    let mut publisher = RtmpClient::publisher_on(socket, "live", "jumping")?;
    publisher.send_video(0, avc_header(1, 0).into())?;
    for n in (0..150_u32).take_while(|_| !stop.load(Ordering::Relaxed)) {
        let ms = n * 200;
        publisher.send_video(if ms < 2_000 { ms } else { JUMP_MS.wrapping_add(ms) }, key_frame())?;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok(())
}

pub(super) fn jump(_: &Setup, target: &mut Target) -> anyhow::Result<String> {
    target.withstand(|node| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(node, &stop));
            let checked = check(node);
            stop.store(true, Ordering::Relaxed);
            publisher.join().ok().context("the publisher panicked")??;
            checked
        })
    })
}

/// Checks what viewers and status show of the stream after the jump.
fn check(node: &Node) -> anyhow::Result<String> {
    let media_ms = wait::until("four seconds of media", || {
        let status = node.status("live/jumping").ok()??;
        (status.media_ms >= 4_000).then_some(status.media_ms)
    })?;
    ensure!(media_ms < 60_000, "a few seconds of media count as {media_ms} ms");
    let playlist = wait::until("a playlist", || {
        let response = http::get(node.http(), "/live/streams/jumping/playlist.m3u8").ok()?;
        (response.status == 200).then(|| response.text())
    })?;
    let target_duration = playlist.lines().find_map(|l| l.strip_prefix("#EXT-X-TARGETDURATION:"));
    let target_duration: u64 = target_duration.with_context(|| playlist.clone())?.trim().parse()?;
    ensure!(target_duration <= MAX_TARGET_DURATION, "a target duration of {target_duration} s");
    Ok(format!("target duration {target_duration} s, {media_ms} ms of media"))
}
