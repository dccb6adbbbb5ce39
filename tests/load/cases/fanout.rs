//! One stream with many viewers: RTMP (audio merged with video or not), WHEP, HLS or LL-HLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::Semaphore;

use super::{SETTLE_PERIOD, Setup, Subject, measure};
use crate::floor::{self, Floor, FloorKind};
use crate::hls;
use crate::http::Client;
use crate::report::Case;
use crate::rtmp::player;
use crate::rtmp::publisher::Publishers;
use crate::server::{Server, ServerKind};
use crate::udp::Socket;
use crate::viewers::Viewers;
use crate::whep::{Identity, viewer};

/// Protocol of the viewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Rtmp,
    /// RTMP from an engine with `merge_audio = false`. nginx has no such setting.
    RtmpUnmerged,
    Whep,
    Hls,
    Llhls,
}

impl Protocol {
    /// RTMP, by the engine's setting `[rtmp] merge_audio`.
    pub(crate) fn rtmp(merge_audio: bool) -> Self {
        if merge_audio { Self::Rtmp } else { Self::RtmpUnmerged }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::RtmpUnmerged => "rtmp-unmerged",
            Self::Whep => "whep",
            Self::Hls => "hls",
            Self::Llhls => "llhls",
        }
    }

    /// True if nginx supports it.
    pub(crate) fn has_peer(self) -> bool {
        matches!(self, Self::Rtmp | Self::RtmpUnmerged | Self::Hls)
    }

    /// The kind of floor for this protocol, if there is one.
    pub(crate) fn floor(self) -> Option<FloorKind> {
        match self {
            Self::Rtmp => Some(FloorKind::Rtmp),
            Self::RtmpUnmerged => Some(FloorKind::RtmpUnmerged),
            Self::Whep => Some(FloorKind::Whep),
            Self::Hls | Self::Llhls => None,
        }
    }
}

/// Measures `count` viewers of one stream.
///
/// # Errors
/// If the server did not start, or a viewer could not join.
pub(crate) async fn run(setup: &Setup, protocol: Protocol, subject: Subject, count: usize, round: u32) -> Result<Case> {
    match subject {
        Subject::Server(kind) => {
            let merge_audio = protocol != Protocol::RtmpUnmerged;
            let server = Server::start(kind, &setup.engine, merge_audio, setup.attach).await?;
            let measured = on_server(setup, protocol, &server, count, round).await;
            measured.with_context(|| format!("log of {}:\n{}", kind.name(), server.log()))
        }
        Subject::Floor => on_floor(setup, protocol, count, round).await,
    }
}

async fn on_server(setup: &Setup, protocol: Protocol, server: &Server, count: usize, round: u32) -> Result<Case> {
    let app = app_for(server.kind, protocol);
    let source = Arc::clone(&setup.source);
    let marks_every = if protocol == Protocol::Whep { WHEP_MARKS_EVERY } else { 1 };
    let mut publishers =
        Publishers::start(server.publish, app, vec![STREAM_NAME.to_owned()], source, marks_every).await?;
    if matches!(protocol, Protocol::Hls | Protocol::Llhls) {
        wait_for_segments(server, app, protocol).await?;
    }
    let mut group = ViewerGroup::new(protocol, server, app)?;

    // The first viewer creates everything that exists once per stream; memory
    // is counted from there.
    group.add(0, 1);
    group.viewers.wait_joined(1, JOIN_TIMEOUT).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;
    let rss_before = server.processes.rss_kb()?;
    for n in 1..count {
        group.add(n, count);
        tokio::time::sleep(JOIN_INTERVAL).await;
    }
    group.viewers.wait_joined(count, JOIN_TIMEOUT).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;
    let tally = &group.viewers.tally;
    let window = measure(&server.processes, tally, setup.window).await?;
    publishers.check()?;
    let rss_kb = server.processes.rss_kb()?;
    if window.counts.failed > 0 {
        let why = group.viewers.first_error().unwrap_or_default();
        crate::report::progress(&format!("{} viewers failed: {why}", window.counts.failed));
    }
    Ok(Case {
        case: protocol.name(),
        server: server.kind.name(),
        round,
        count,
        seconds: window.seconds,
        cpu_seconds: window.cpu_seconds,
        bytes: window.counts.bytes,
        packets: window.counts.packets,
        frames: window.counts.frames,
        lost: window.counts.lost,
        failed: window.counts.failed,
        kb_each: (count > 1).then(|| rss_kb.saturating_sub(rss_before) as f64 / (count - 1) as f64),
        rss_kb: Some(rss_kb),
        latency_ms: tally.take_latencies(),
        join_ms: tally.joins(),
    })
}

async fn on_floor(setup: &Setup, protocol: Protocol, count: usize, round: u32) -> Result<Case> {
    let Some(kind) = protocol.floor() else { bail!("{} has no floor", protocol.name()) };
    let mut floor = Floor::start(kind)?;
    let mut viewers = Viewers::default();
    let mut targets = Vec::new();
    if matches!(kind, FloorKind::Rtmp | FloorKind::RtmpUnmerged) {
        let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await?);
        for _ in 0..count {
            targets.push(listener.local_addr()?);
            viewers.add(floor::tcp_sink(Arc::clone(&listener), Arc::clone(&viewers.tally)));
        }
    } else {
        for _ in 0..count {
            let socket = Socket::bind()?;
            targets.push(socket.local_addr()?);
            viewers.add(floor::udp_sink(socket, Arc::clone(&viewers.tally)));
        }
    }
    floor.set_targets(&targets)?;
    viewers.wait_joined(count, JOIN_TIMEOUT).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;
    let window = measure(&floor.processes, &viewers.tally, setup.window).await?;
    Ok(Case {
        case: protocol.name(),
        server: Subject::Floor.name(),
        round,
        count,
        seconds: window.seconds,
        cpu_seconds: window.cpu_seconds,
        bytes: window.counts.bytes,
        packets: window.counts.packets,
        frames: 0,
        lost: 0,
        failed: window.counts.failed,
        kb_each: None,
        rss_kb: None,
        latency_ms: None,
        join_ms: None,
    })
}

/// Viewers of one protocol on one server.
struct ViewerGroup<'a> {
    protocol: Protocol,
    server: &'a Server,
    app: &'static str,
    viewers: Viewers,
    identity: Arc<Identity>,
    /// Limits concurrent handshakes, so that this process does not add to the measured latency.
    handshakes: Arc<Semaphore>,
}

impl<'a> ViewerGroup<'a> {
    fn new(protocol: Protocol, server: &'a Server, app: &'static str) -> Result<Self> {
        let (viewers, identity) = (Viewers::default(), Arc::new(Identity::new()?));
        Ok(Self { protocol, server, app, viewers, identity, handshakes: Arc::new(Semaphore::new(4)) })
    }

    fn add(&mut self, n: usize, count: usize) {
        let tally = Arc::clone(&self.viewers.tally);
        let (app, reads_marks) = (self.app, n < MARK_READERS);
        match self.protocol {
            Protocol::Rtmp | Protocol::RtmpUnmerged => {
                let server = self.server.rtmp;
                self.viewers.add(async move { player::play(server, app, STREAM_NAME, tally).await });
            }
            Protocol::Whep => {
                let (server, path) = (self.server.http, self.server.whep(app, STREAM_NAME));
                let identity = Arc::clone(&self.identity);
                let handshakes = Arc::clone(&self.handshakes);
                self.viewers.add(async move {
                    let turn = handshakes.acquire_owned().await?;
                    let joined = viewer::Viewer { server, path, reads_marks, identity, tally }.join().await?;
                    drop(turn);
                    joined.watch().await
                });
            }
            Protocol::Hls | Protocol::Llhls => {
                let viewer = hls::Viewer {
                    server: self.server.http,
                    playlist: self.server.playlist(app, STREAM_NAME),
                    reads_marks,
                    // Spreads the polls over a whole second, however fast the viewers are added.
                    delay: Duration::from_secs(1) * n as u32 / count as u32,
                    tally,
                };
                if self.protocol == Protocol::Hls {
                    self.viewers.add(viewer.watch_segments());
                } else {
                    self.viewers.add(viewer.watch_parts());
                }
            }
        }
    }
}

/// Waits for the first segments, without which an HLS player has nothing to play.
async fn wait_for_segments(server: &Server, app: &str, protocol: Protocol) -> Result<()> {
    let mut client = Client::new(server.http);
    let path = server.playlist(app, STREAM_NAME);
    for _ in 0..150 {
        let response = client.get(&path, true).await?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let marker = if protocol == Protocol::Hls { "#EXTINF" } else { "#EXT-X-PART:" };
        if response.status == 200 && (text.matches(marker).count() >= 2 || text.contains("#EXT-X-STREAM-INF")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("no segments within 15 s at {path}")
}

/// The application to publish to. nginx creates HLS only in an application that
/// is configured for it.
pub(crate) fn app_for(kind: ServerKind, protocol: Protocol) -> &'static str {
    if kind == ServerKind::Nginx && protocol == Protocol::Hls { "hls" } else { "live" }
}

/// Id of the published stream.
pub(crate) const STREAM_NAME: &str = "load";
/// Number of viewers that read marks in WHEP packets and HLS segments; RTMP players all do.
const MARK_READERS: usize = 5;
/// Over WHEP, a mark is a separate packet, which cameras and encoders do not send, so not every
/// frame gets one. Losses are detected by gaps in the sequence numbers.
const WHEP_MARKS_EVERY: u32 = 10;
const JOIN_INTERVAL: Duration = Duration::from_millis(3);
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
