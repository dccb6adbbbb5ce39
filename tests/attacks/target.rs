//! A node with a publisher and the canary, and the check that both withstand an attack.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_api::config::Listen;
use headwater_tests::engine::{self, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::temp::TempDir;
use tokio::runtime::Handle;

use crate::canary::Canary;
use crate::node::Node;
use crate::sandbox::NODE_ADDRESS;

/// Id of the stream that the canary plays: `live/canary`.
pub(crate) const CANARY_ID: &str = "canary";

/// What all attacks share.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) runtime: Handle,
    /// True if attacks may take minutes.
    pub(crate) long: bool,
    max_gap: Duration,
    folder: TempDir,
}

impl Setup {
    pub(crate) fn new(runtime: Handle, long: bool, max_gap: Duration) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        folder.write("secret", "the secret of the attacked cluster\n")?;
        Ok(Self { runtime, long, max_gap, folder })
    }

    /// `usual`, or `long` for a long run.
    pub(crate) fn scale<T>(&self, usual: T, long: T) -> T {
        if self.long { long } else { usual }
    }

    /// The defaults of a node with all listeners: HTTP, RTMP, WebRTC and relay at the address of
    /// the node, health at every address.
    pub(crate) fn options(&self) -> Options {
        let secret_file = Some(self.folder.path().join("secret"));
        Options::with(|c| {
            c.node.addresses = vec![NODE_ADDRESS.into()];
            for listen in [&mut c.http.listen, &mut c.http.tls_listen, &mut c.rtmp.listen, &mut c.rtmp.tls_listen] {
                if let Listen::At(address) = listen {
                    address.set_ip(NODE_ADDRESS.into());
                }
            }
            c.relay.listen.set_ip(NODE_ADDRESS.into());
            c.health.listen.set_ip([0, 0, 0, 0].into());
            c.relay.secret_file = secret_file;
            c.node.max_streams = MAX_STREAMS.try_into().unwrap_or(c.node.max_streams);
        })
    }
}

/// Maximum number of streams of a node, so low that it can be reached.
pub(crate) const MAX_STREAMS: usize = 40;

/// A node that is watched. Dropping it kills all processes.
#[derive(Debug)]
pub(crate) struct Target {
    canary: Canary,
    /// None if the stream comes from another node.
    publisher: Option<Process>,
    node: Node,
    max_gap: Duration,
    /// The folder of the node, unless its owner removes it.
    folder: Option<TempDir>,
}

impl Target {
    /// Starts a node in a new folder, a publisher and the canary.
    ///
    /// # Errors
    /// If one of them does not start.
    pub(crate) fn start(setup: &Setup, options: Options) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let node = Node::start_in(options, folder.path())?;
        node.wait_ready()?;
        let mut target = Self::watch(setup, node)?;
        target.folder = Some(folder);
        Ok(target)
    }

    /// Starts a publisher and the canary on a node.
    ///
    /// # Errors
    /// If one of them does not start.
    pub(crate) fn watch(setup: &Setup, node: Node) -> anyhow::Result<Self> {
        let url = format!("rtmp://{}/live/{CANARY_ID}", node.rtmp());
        let publisher = publish::start_ffmpeg(&Source::default(), &url)?.context("ffmpeg is not installed")?;
        let has_media = |status: &headwater_api::rest::StreamStatus| status.video.is_some() && status.audio.is_some();
        engine::wait_status(node.http(), &format!("live/{CANARY_ID}"), "video and audio", has_media)?;
        let mut target = Self::watch_relayed(setup, node)?;
        target.publisher = Some(publisher);
        Ok(target)
    }

    /// Starts the canary on a node that gets the stream from another one.
    ///
    /// # Errors
    /// If it does not play.
    pub(crate) fn watch_relayed(setup: &Setup, node: Node) -> anyhow::Result<Self> {
        let canary = Canary::start(&setup.runtime, node.http(), node.rtmp(), CANARY_ID)?;
        Ok(Self { canary, publisher: None, node, max_gap: setup.max_gap, folder: None })
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Runs an attack. Returns its figure with the canary's gaps and the growth of the memory.
    ///
    /// # Errors
    /// If the attack reports one, a viewer had a longer gap than permitted, or the engine is not
    /// intact.
    pub(crate) fn withstand(&mut self, attack: impl FnOnce(&Node) -> anyhow::Result<String>) -> anyhow::Result<String> {
        self.withstand_with(Duration::ZERO, attack)
    }

    /// Like [`Target::withstand`], with a gap that the attack itself causes.
    pub(crate) fn withstand_with(
        &mut self,
        own_gap: Duration,
        attack: impl FnOnce(&Node) -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        let before = self.node.snapshot()?;
        self.canary.reset();
        let figure = attack(&self.node)?;
        ensure!(self.publisher.as_ref().is_none_or(Process::is_running), "the publisher has ended");
        let gaps = self.canary.gaps().context("the canary")?;
        let grown_mib = self.node.ensure_intact_since(before)?;
        let max_gap = self.max_gap + own_gap;
        ensure!(gaps.longest() <= max_gap, "{gaps}, permitted {} ms; {figure}", max_gap.as_millis());
        Ok(format!("{gaps}; +{grown_mib} MiB; {figure}"))
    }
}
