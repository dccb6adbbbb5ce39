//! One database (`tests/mongo/database`) in a host of its own, behind a line that can be slowed and cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use headwater_tests::delay::Delay;
use headwater_tests::temp::Folder;
use headwater_tests::{mongo, tools};
use tokio::runtime::Handle;

use crate::host::Host;
use crate::scene::Missing;

/// A running database. Dropped = gone, with its host.
#[derive(Debug)]
pub(crate) struct Database {
    host: Arc<Host>,
    line: Delay,
    uri: String,
    folder: Folder,
}

impl Database {
    /// Starts it on a host made `with_processes`.
    ///
    /// # Errors
    /// If there is no MongoDB here and none can be made.
    pub(crate) fn start(host: Host, runtime: &Handle) -> anyhow::Result<Self> {
        let host = Arc::new(host);
        let folder = Folder::new()?;
        let uri = call(&host, "start", folder.path())?;
        let uri = uri.lines().last().context("a database without a connection string")?;
        let (before, after) = uri.split_once("127.0.0.1:").context("a database elsewhere")?;
        let (port, after) = after.split_once('/').context("a connection string without an end")?;
        let inside: SocketAddr = format!("127.0.0.1:{port}").parse()?;
        let outside = host.at(PORT);
        let uri = format!("{before}{outside}/{after}");
        let listener = host.listen(outside)?;
        let caller = Arc::clone(&host);
        let line = Delay::start(runtime, listener, move || caller.connect(inside))?;
        Ok(Self { host, line, uri, folder })
    }

    /// Its host.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// How the nodes reach it, password included.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The line to it.
    pub(crate) fn line(&self) -> &Delay {
        &self.line
    }

    /// Ends the database as a power cut would.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        call(&self.host, "kill", self.folder.path()).map(drop)
    }

    /// Starts it again, with the same data.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        call(&self.host, "start", self.folder.path()).map(drop)
    }
}

fn call(host: &Host, what: &str, folder: &Path) -> anyhow::Result<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mongo/database");
    let output = host.command_among_processes(script).arg(what).arg(folder).output()?;
    if output.status.code() == Some(mongo::NONE) {
        tools::missing("no MongoDB, and none can be made here");
        return Err(Missing.into());
    }
    ensure!(output.status.success(), "database {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// MongoDB's.
const PORT: u16 = 27_017;
/// What `tests/mongo/database` has for a password, as connection strings have it.
pub(super) const SECRET: &str = "test-only@";
