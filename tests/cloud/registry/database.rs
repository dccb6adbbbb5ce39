//! A single database (`tests/mongo/database`) on its own host, behind a proxy that can
//! delay and stop it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use headwater_tests::delay_proxy::DelayProxy;
use headwater_tests::temp::TempDir;
use headwater_tests::{mongo, tools};
use tokio::runtime::Handle;

use crate::host::Host;
use crate::missing_tool::MissingTool;

/// A running database. Dropping it removes it with its host.
#[derive(Debug)]
pub(crate) struct Database {
    host: Arc<Host>,
    proxy: DelayProxy,
    uri: String,
    folder: TempDir,
}

impl Database {
    /// Starts a database on a host created by [`Host::with_pid_namespace`].
    ///
    /// # Errors
    /// If MongoDB is not installed and no replacement can be built.
    pub(crate) fn start(host: Host, runtime: &Handle) -> anyhow::Result<Self> {
        let host = Arc::new(host);
        let folder = TempDir::new()?;
        let uri = run_script(&host, "start", folder.path())?;
        let uri = uri.lines().last().context("the database script printed no connection string")?;
        let (before, after) = uri.split_once("127.0.0.1:").context("the database does not listen on 127.0.0.1")?;
        let (port, after) = after.split_once('/').context("malformed connection string")?;
        let local_address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
        let public_address = host.socket_address(PORT);
        let uri = format!("{before}{public_address}/{after}");
        let listener = host.listen(public_address)?;
        let caller = Arc::clone(&host);
        let proxy = DelayProxy::start(runtime, listener, move || caller.connect(local_address))?;
        Ok(Self { host, proxy, uri, folder })
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
    pub(crate) fn proxy(&self) -> &DelayProxy {
        &self.proxy
    }

    /// Kills the database, like a power failure.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        run_script(&self.host, "kill", self.folder.path()).map(drop)
    }

    /// Starts it again with the same data.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        run_script(&self.host, "start", self.folder.path()).map(drop)
    }
}

fn run_script(host: &Host, command: &str, folder: &Path) -> anyhow::Result<String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mongo/database");
    let output = host.command_in_pid_namespace(script).arg(command).arg(folder).output()?;
    if output.status.code() == Some(mongo::EXIT_UNAVAILABLE) {
        tools::skip_missing("MongoDB is not installed and no replacement can be built");
        return Err(MissingTool.into());
    }
    ensure!(output.status.success(), "database {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// MongoDB's default port.
const PORT: u16 = 27_017;
/// The password that `tests/mongo/database` sets, as it appears in connection strings.
pub(super) const PASSWORD_IN_URI: &str = "test-only@";
