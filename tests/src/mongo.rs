//! A private database for a test, which may be killed and restarted: `tests/mongo/database`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::temp::TempDir;
use crate::tools;

/// A running MongoDB, or a stand-in for it. Stopped on drop.
#[derive(Debug)]
pub struct Database {
    folder: TempDir,
    uri: String,
}

impl Database {
    /// Starts a database on a free port. Returns `None` if none is installed; the skip is printed.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let folder = TempDir::new()?;
        let output = run_script("start", folder.path())?;
        if output.status.code() == Some(EXIT_UNAVAILABLE) {
            tools::skip_missing("no MongoDB is installed, and no stand-in can be built here");
            return Ok(None);
        }
        ensure!(output.status.success(), "no database: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let uri = text.lines().last().context("a database without a connection string")?.to_owned();
        Ok(Some(Self { folder, uri }))
    }

    /// Connection string, including the password.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Kills the database, as a power failure would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.run_script("kill")
    }

    /// Restarts the database on the same port with the same data.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.run_script("start")
    }

    fn run_script(&self, what: &str) -> anyhow::Result<()> {
        let output = run_script(what, self.folder.path())?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Fails if the database has ended, which is fine.
        let _ = self.run_script("stop");
    }
}

fn run_script(what: &str, folder: &Path) -> anyhow::Result<std::process::Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mongo/database");
    Ok(Command::new(script).arg(what).arg(folder).output()?)
}

/// Exit code of the script if no database is installed and none can be built.
pub const EXIT_UNAVAILABLE: i32 = 75;
