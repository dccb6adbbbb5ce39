//! Clients that claim to have other addresses: in `X-Forwarded-For`, and as the source of STUN
//! requests.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::process::Process;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::{http, pion, wait};
use serde::Deserialize;

use crate::attacker::{attacker, connect_from, newcomer};
use crate::canary::WhepViewer;
use crate::node::Node;
use crate::target::{CANARY_ID, Setup, Target};

/// 20,000 requests with another claimed address each, on one connection: they are one client.
pub(super) fn forwarded_for(_: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const REQUESTS: u32 = 20_000;
    target.withstand(|node| {
        let mut sending = connect_from(attacker(0), node.http())?;
        let mut receiving = sending.try_clone()?;
        let at = node.http();
        let sender = std::thread::spawn(move || {
            for n in 0..REQUESTS {
                let [_, a, b, c] = n.to_be_bytes();
                let close = if n + 1 == REQUESTS { "connection: close\r\n" } else { "" };
                let head = format!(
                    "GET /live/streams/{CANARY_ID}/playlist.m3u8 HTTP/1.1\r\nhost: {at}\r\n\
                     x-forwarded-for: 11.{a}.{b}.{c}\r\n{close}\r\n"
                );
                sending.write_all(head.as_bytes())?;
            }
            std::io::Result::Ok(())
        });
        let (mut responses, mut buffer, mut kept) = (0, vec![0; 64 << 10], Vec::new());
        loop {
            let read = receiving.read(&mut buffer).context("the responses")?;
            if read == 0 {
                break;
            }
            kept.extend_from_slice(&buffer[..read]);
            responses += kept.windows(STATUS_LINE.len()).filter(|w| w == &STATUS_LINE).count();
            kept.drain(..kept.len().saturating_sub(STATUS_LINE.len() - 1));
        }
        sender.join().ok().context("the sender panicked")??;
        ensure!(responses == REQUESTS as usize, "{responses} of {REQUESTS} requests were answered with 200");
        let viewers = most_hls_viewers(node)?;
        ensure!(viewers <= 5, "{viewers} HLS viewers are counted");
        // Nobody is refused, over any protocol.
        let page = connect_from(newcomer(0), node.http())?;
        ensure!(http::request_on(page, "GET", "/live/play.html", &[], b"")?.status == 200, "a page is refused");
        RtmpClient::player_on(connect_from(newcomer(0), node.rtmp())?, "live", CANARY_ID)?.next_video()?;
        WhepViewer::start(node.http(), CANARY_ID, newcomer(0).into())?.wait_playing()?;
        Ok(format!("{responses} answered, counted as {viewers} HLS viewers"))
    })
}

/// The highest number of HLS viewers of the canary's stream, over a time in which the node updates
/// it.
fn most_hls_viewers(node: &Node) -> anyhow::Result<u64> {
    const UPDATE_INTERVAL: Duration = Duration::from_secs(2);
    let (started, mut most) = (Instant::now(), 0);
    wait::until("an update of the number of viewers", || {
        most = most.max(node.status(&format!("live/{CANARY_ID}")).ok()??.viewers.hls);
        (started.elapsed() > 2 * UPDATE_INTERVAL).then_some(())
    })?;
    Ok(most)
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 200 ";

/// Connectivity checks with valid credentials and USE-CANDIDATE from an address that answers
/// nothing: the media must not go there.
pub(super) fn stun(_: &Setup, target: &mut Target) -> anyhow::Result<String> {
    /// RFC 9000 §8.1 has the same limit for addresses that are not validated.
    const MAX_AMPLIFICATION: u64 = 3;
    target.withstand(|node| {
        let mut command = Command::new(pion::viewer_path()?.context("the Pion viewer is not built")?);
        let url = format!("http://{}/live/whep/{CANARY_ID}", node.http());
        command.args(["-url", &url, "-bind", &attacker(0).to_string(), "-forge", &attacker(1).to_string()]);
        command.args(["-seconds", "30", "-progress", "100ms"]);
        let attacking = Process::start(&mut command)?;
        let line: Line = serde_json::from_str(&attacking.wait_line("\"event\":\"forged\"")?)?;
        let forged = line.report;
        ensure!(forged.requests > 0 && forged.datagrams > 0, "the server ignored the requests: {forged:?}");
        ensure!(
            forged.received_bytes <= MAX_AMPLIFICATION * forged.sent_bytes,
            "{} bytes went to an address that sent {}",
            forged.received_bytes,
            forged.sent_bytes
        );
        // The media still goes to the viewer.
        let before = attacking.line_count();
        attacking.wait_line_from(before, "\"event\":\"progress\"")?;
        let frames = |line: &str| -> anyhow::Result<u64> {
            let line: serde_json::Value = serde_json::from_str(line)?;
            line["report"]["frames"].as_u64().context("a progress line without frames")
        };
        let first = frames(&attacking.wait_line_from(before, "\"event\":\"progress\"")?)?;
        wait::until("frames at the viewer's own address", || {
            let lines = attacking.lines_from(before);
            let last = lines.iter().rev().find(|l| l.contains("\"event\":\"progress\""))?;
            (frames(last).ok()? > first + 25).then_some(())
        })?;
        Ok(format!("{} bytes for {} sent", forged.received_bytes, forged.sent_bytes))
    })
}

#[derive(Deserialize)]
struct Line {
    report: Forged,
}

#[derive(Debug, Deserialize)]
struct Forged {
    requests: u64,
    sent_bytes: u64,
    datagrams: u64,
    received_bytes: u64,
}
