//! A full disk makes a node unready and has no other effect.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
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

fn start(setup: &Setup, folder: &Path) -> anyhow::Result<Node> {
    let mut options = setup.options();
    options.config.limits.min_free_mb = 2;
    Node::start_in(options, folder)
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
    let node = start(setup, folder.path())?;
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

/// The disk is full when a node starts, for the first time and again.
pub(super) fn full_at_start(setup: &Setup) -> anyhow::Result<String> {
    let folder = NodeFolder::new()?;
    let hog = folder.hog();
    fill(&hog)?;
    for run in ["the first start", "a start again"] {
        let node = start(setup, folder.path()).context(run)?;
        wait_unready(&node).context(run)?;
        let mut target = Target::watch(setup, node).context(run)?;
        target.withstand(|_| Ok(String::new())).context(run)?;
        ensure!(hog.exists(), "nothing may be deleted");
    }
    let node = start(setup, folder.path())?;
    let mut target = Target::watch(setup, node)?;
    target.withstand(|node| {
        std::fs::remove_file(&hog)?;
        node.wait_ready()?;
        Ok("serves with a full disk, and is ready when it has space".to_owned())
    })
}
