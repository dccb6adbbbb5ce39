//! The canary: three independent viewers of one stream, each of which measures the longest time
//! between two frames or parts that it received.
//!
//! RTMP is played by ffmpeg, WHEP by Pion, LL-HLS by a player that blocks on the playlist and
//! fetches each part. Must not know attacks.

#[path = "../cloud/viewers/hls.rs"]
#[expect(dead_code, reason = "the cluster checks use more of it")]
mod hls;
#[path = "../cloud/viewers/rtmp.rs"]
mod rtmp;
#[path = "../cloud/viewers/whep.rs"]
#[expect(dead_code, reason = "the cluster checks use more of it")]
mod whep;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use headwater_tests::wait;
use tokio::runtime::Handle;

use crate::sandbox::NODE_ADDRESS;
use hls::{HlsPlayers, Kind};
use rtmp::RtmpPlayer;
pub(crate) use whep::WhepViewer;

/// Three viewers. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Canary {
    rtmp: RtmpPlayer,
    hls: HlsPlayers,
    whep: WhepViewer,
}

/// Longest time without a new frame or part, by viewer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gaps {
    rtmp: Duration,
    hls: Duration,
    whep: Duration,
}

impl Canary {
    /// Plays `live/ID` over all protocols, and waits until all viewers have received media.
    ///
    /// # Errors
    /// If one of them does not play.
    pub(crate) fn start(runtime: &Handle, http: SocketAddr, rtmp: SocketAddr, id: &str) -> anyhow::Result<Self> {
        let mut canary = Self {
            rtmp: RtmpPlayer::start(&format!("rtmp://{rtmp}/live/{id}"))?,
            hls: HlsPlayers::start(runtime, Kind::LowLatency, &[http], id, 1),
            whep: WhepViewer::start(http, id, NODE_ADDRESS.into())?,
        };
        canary.wait_progress().context("the canary does not play")?;
        canary.reset();
        Ok(canary)
    }

    /// Restarts the measurement.
    pub(crate) fn reset(&mut self) {
        self.rtmp.reset_pauses();
        self.hls.reset_pauses();
        self.whep.reset_pauses();
    }

    /// Waits until every viewer has received more media, and returns the longest gaps since the
    /// last reset.
    ///
    /// # Errors
    /// If a viewer has ended, was refused something, or receives nothing more.
    pub(crate) fn gaps(&self) -> anyhow::Result<Gaps> {
        self.wait_progress()?;
        let hls = self.hls.stats();
        anyhow::ensure!(
            hls.error_responses() == 0 && hls.failed_requests == 0,
            "LL-HLS: {} error responses, {} failed requests, first {:?}",
            hls.error_responses(),
            hls.failed_requests,
            hls.first_error
        );
        Ok(Gaps { rtmp: self.rtmp.progress()?.1, hls: hls.longest_pause, whep: self.whep.progress()?.1 })
    }

    fn wait_progress(&self) -> anyhow::Result<()> {
        let (rtmp, hls) = (self.rtmp.progress()?.0, self.hls.stats().fetched);
        let whep = self.whep.progress()?.0;
        wait::until("the RTMP player", || (self.rtmp.progress().ok()?.0 > rtmp + MORE_FRAMES).then_some(()))?;
        wait::until("the WHEP viewer", || (self.whep.progress().ok()?.0 > whep + MORE_FRAMES).then_some(()))?;
        wait::until("the LL-HLS player", || (self.hls.stats().fetched > hls + MORE_PARTS).then_some(()))
            .with_context(|| format!("{:?}", self.hls.stats()))
    }
}

impl Gaps {
    /// The longest of them.
    pub(crate) fn longest(&self) -> Duration {
        self.rtmp.max(self.hls).max(self.whep)
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rtmp, hls, whep } = self;
        let [rtmp, hls, whep] = [rtmp, hls, whep].map(|gap| gap.as_millis());
        write!(f, "gaps: RTMP {rtmp}, LL-HLS {hls}, WHEP {whep} ms")
    }
}

/// About a second of media.
const MORE_FRAMES: u64 = 25;
const MORE_PARTS: u64 = 3;
