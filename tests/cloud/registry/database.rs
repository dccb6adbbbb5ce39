//! A single database (`tests/mongo/database`) on its own host, behind a proxy that can delay and
//! stop it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use headwater_tests::delay::Delay;
use headwater_tests::temp::Folder;
use headwater_tests::{mongo, tools};
use tokio::runtime::Handle;

use crate::cluster::MissingTool;
use crate::host::Host;

/// A running database. Dropping it removes it with its host.
#[derive(Debug)]
pub(crate) struct Database {
    host: Arc<Host>,
    line: Delay,
    uri: String,
    folder: Folder,
}

impl Database {
    /// Starts a database on a host created by [`Host::with_pid_namespace`].
    ///
    /// # Errors
    /// If MongoDB is not installed and no replacement can be built.
    pub(crate) fn start(host: Host, runtime: &Handle) -> anyhow::Result<Self> {
        let host = Arc::new(host);
        let folder = Folder::new()?;
        let uri = call(&host, "start", folder.path())?;
        let uri = uri.lines().last().context("a database without a connection string")?;
        let (before, after) = uri.split_once("127.0.0.1:").context("a database elsewhere")?;
        let (port, after) = after.split_once('/').context("a connection string without an end")?;
        let inside: SocketAddr = format!("127.0.0.1:{port}").parse()?;
        let outside = host.socket_address(PORT);
        let uri = format!("{before}{outside}/{after}");
        let listener = host.listen(outside)?;
        let caller = Arc::clone(&host);
        let line = Delay::start(runtime, listener, move || caller.connect(inside))?;
        Ok(Self { host, line, uri, folder })
    }

    /// The host of the database.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Connection string for the nodes, password included.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The proxy in front of it.
    pub(crate) fn proxy(&self) -> &Delay {
        &self.line
    }

    /// Kills the database, like a power failure.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        call(&self.host, "kill", self.folder.path()).map(drop)
    }

    /// Starts it again with the same data.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        call(&self.host, "start", self.folder.path()).map(drop)
    }
}

fn call(host: &Host, what: &str, folder: &Path) -> anyhow::Result<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mongo/database");
    let output = host.command_in_pid_namespace(script).arg(what).arg(folder).output()?;
    if output.status.code() == Some(mongo::NONE) {
        tools::missing("no MongoDB, and none can be made here");
        return Err(MissingTool.into());
    }
    ensure!(output.status.success(), "database {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// MongoDB's default port.
const PORT: u16 = 27_017;
/// The password that `tests/mongo/database` sets, as it appears in connection strings.
pub(super) const SECRET: &str = "test-only@";
