//! WHEP offers: as large as permitted, and so many that never connect.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_tests::http::{self, Response};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::attacker::{attacker, connect_from, newcomer};
use crate::canary::WhepViewer;
use crate::node::Node;
use crate::target::{CANARY_ID, Setup, Target};

#[path = "../../load/whep/sdp.rs"]
#[expect(dead_code, reason = "the load tool reads answers, too")]
mod sdp;

fn post(number: usize, server: SocketAddr, offer: &str) -> anyhow::Result<Response> {
    let stream = connect_from(attacker(number), server)?;
    let path = format!("/live/whep/{CANARY_ID}");
    http::request_on(stream, "POST", &path, &[("content-type", "application/sdp")], offer.as_bytes())
}

/// CPU time of the engine so far.
fn engine_cpu(node: &Node) -> anyhow::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(node.engine_pid())?);
    Ok(clock_getcpuclockid(pid).and_then(clock_gettime)?.into())
}

/// Offers of almost 64 KB with 16,000 payload types and 2,230 attributes in one section, eight at a
/// time.
pub(super) fn large(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    /// A parser whose time grows with the product of both numbers needs 0.6 s per offer.
    const MAX_CPU_PER_OFFER: Duration = Duration::from_millis(60);
    let threads = 8;
    let offers_per_thread = setup.scale(25, 250);
    let offer = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF{}\r\n{}",
        " 9".repeat(16_000),
        "a=rtcp-fb:9 \r\n".repeat(2_230)
    );
    ensure!(offer.len() < 64 << 10, "the offer has {} bytes", offer.len());
    target.withstand(|node| {
        let before = engine_cpu(node)?;
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..threads)
                .map(|thread| {
                    let offer = offer.as_str();
                    scope.spawn(move || {
                        for n in 0..offers_per_thread {
                            let response = post(thread * offers_per_thread + n, node.http(), offer)?;
                            ensure!(response.status == 400, "{} {}", response.status, response.text());
                        }
                        Ok(())
                    })
                })
                .collect();
            senders.into_iter().try_for_each(|s| s.join().ok().context("a sender panicked")?)
        })?;
        let count = u32::try_from(threads * offers_per_thread)?;
        let cpu = engine_cpu(node)?.saturating_sub(before) / count;
        ensure!(cpu < MAX_CPU_PER_OFFER, "{} ms of CPU time per offer", cpu.as_millis());
        Ok(format!("{count} refused, {:.1} ms of CPU time each", cpu.as_secs_f64() * 1_000.0))
    })
}

/// More offers than sessions may wait, from many addresses; nobody connects. A real viewer still
/// gets in.
pub(super) fn unconnected(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const MAX_CONNECTING: f64 = 1_000.0;
    let threads = 8;
    let offers_per_thread = setup.scale(250, 1_250);
    target.withstand(|node| {
        let ended = node.metric("headwater_webrtc_unconnected_sessions_total")?;
        let offer = |n: usize| {
            let credentials = sdp::Credentials { ufrag: format!("u{n:07}"), pwd: format!("password-of-offer-{n:010}") };
            sdp::offer(&credentials, &["AB"; 32].join(":"))
        };
        let accepted = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut accepted = 0;
                        for n in 0..offers_per_thread {
                            let n = thread * offers_per_thread + n;
                            let response = post(n, node.http(), &offer(n))?;
                            ensure!([201, 503].contains(&response.status), "{} {}", response.status, response.text());
                            accepted += usize::from(response.status == 201);
                        }
                        anyhow::Ok(accepted)
                    })
                })
                .collect();
            senders.into_iter().map(|s| s.join().ok().context("a sender panicked")?).sum::<anyhow::Result<usize>>()
        })?;
        // The same number of offers again as the pool has places at least.
        ensure!(accepted as f64 > MAX_CONNECTING, "only {accepted} offers were accepted");
        let connecting = node.metric("headwater_webrtc_connecting_sessions")?;
        ensure!(connecting <= MAX_CONNECTING, "{connecting} sessions wait for their viewer");
        let first_packet_ms = WhepViewer::start(node.http(), CANARY_ID, newcomer(1).into())?.wait_playing()?;
        let status = node.status(&format!("live/{CANARY_ID}"))?.context("the stream has ended")?;
        ensure!(status.viewers.webrtc <= 10, "{} WebRTC viewers are counted", status.viewers.webrtc);
        let ended = node.metric("headwater_webrtc_unconnected_sessions_total")? - ended;
        Ok(format!(
            "{accepted} accepted, {connecting} waiting, {ended} ended; a viewer's first packet after \
             {first_packet_ms:.0} ms"
        ))
    })
}
