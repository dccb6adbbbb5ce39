//! A full disk makes a node unready and has no other effect.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::Options;
use headwater_tests::temp::TempDir;
use headwater_tests::wait;

use crate::node::Node;
use crate::sandbox::MemoryDisk;
use crate::target::{Setup, Target};

/// Room for the registry and what else a node writes.
const DISK_BYTES: u64 = 16 << 20;

/// Fills the disk to the last byte.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut file = File::create(file)?;
    for block in [vec![1; 64 << 10], vec![1; 512], vec![1; 1]] {
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => break,
                Err(e) => return Err(e).context("could not fill the disk"),
            }
        }
    }
    Ok(())
}

/// A folder for a node whose data folder is on a small disk of its own.
struct NodeFolder {
    disk: MemoryDisk,
    folder: TempDir,
}

impl NodeFolder {
    fn new() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        Ok(Self { disk: MemoryDisk::mount(&data, DISK_BYTES)?, folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Path of the file that fills the disk.
    fn hog(&self) -> PathBuf {
        self.disk.path().join("hog")
    }
}

/// A node on fixed ports, which are free in this network: on a full disk it cannot write the file
/// with its addresses.
fn options(setup: &Setup) -> Options {
    let mut options = setup.options();
    let config = &mut options.config;
    config.limits.min_free_mb = 2;
    config.http.listen.set_port(5_080);
    config.rtmp.listen.set_port(1_935);
    config.relay.listen.set_port(5_000);
    config.health.listen.set_port(5_090);
    options
}

fn serving(setup: &Setup, daemon: Daemon) -> anyhow::Result<Node> {
    Node::with_ports_of(daemon, &options(setup).config)
}

fn wait_unready(node: &Node) -> anyhow::Result<()> {
    wait::until("the node to be unready because of its disk", || {
        node.readiness().ok().filter(|text| text.contains("MB are free in"))
    })
    .map(drop)
}

/// The disk fills up under a node that serves.
pub(super) fn full_while_running(setup: &Setup) -> anyhow::Result<String> {
    let folder = NodeFolder::new()?;
    let node = serving(setup, Daemon::start_in(options(setup), folder.path())?)?;
    node.wait_ready()?;
    let mut target = Target::watch(setup, node)?;
    let hog = folder.hog();
    target.withstand(|node| {
        fill(&hog)?;
        wait_unready(node)?;
        std::fs::remove_file(&hog)?;
        node.wait_ready()?;
        Ok("unready while the disk is full, then ready".to_owned())
    })
}

/// The disk is full when a node starts: for the first time it waits for space, because it has no
/// registry yet; after that it serves.
pub(super) fn full_at_start(setup: &Setup) -> anyhow::Result<String> {
    let folder = NodeFolder::new()?;
    let hog = folder.hog();
    fill(&hog)?;
    let daemon = Daemon::start_in(options(setup), folder.path())?;
    daemon.process().wait_line("out of service").context("the first start")?;
    std::fs::remove_file(&hog)?;
    let node = serving(setup, daemon)?;
    node.wait_ready().context("the first start, with space")?;
    drop(node);

    fill(&hog)?;
    let node = serving(setup, Daemon::start_in(options(setup), folder.path())?)?;
    wait_unready(&node).context("the second start")?;
    let mut target = Target::watch(setup, node).context("the second start")?;
    target.withstand(|node| {
        std::fs::remove_file(&hog)?;
        node.wait_ready()?;
        Ok("waits for space at first; serves with a full disk when it has a registry".to_owned())
    })
}
