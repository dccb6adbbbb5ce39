//! A database of a test's own, that may be killed and started again: `tests/mongo/database`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::temp::Folder;
use crate::tools;

/// A running MongoDB, or what stands in for it. Dropped = ended.
#[derive(Debug)]
pub struct Database {
    folder: Folder,
    uri: String,
}

impl Database {
    /// Starts one on a free port. `None` if there is none here (said aloud).
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let folder = Folder::new()?;
        let output = call("start", folder.path())?;
        if output.status.code() == Some(NONE) {
            tools::missing("no MongoDB, and none can be made here");
            return Ok(None);
        }
        ensure!(output.status.success(), "no database: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let uri = text.lines().last().context("a database without a connection string")?.to_owned();
        Ok(Some(Self { folder, uri }))
    }

    /// How to reach it, password included.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.call("kill")
    }

    /// Starts it again, on the same port with the same data.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.call("start")
    }

    fn call(&self, what: &str) -> anyhow::Result<()> {
        let output = call(what, self.folder.path())?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Nothing to do about one that is gone already.
        let _ = self.call("stop");
    }
}

fn call(what: &str, folder: &Path) -> anyhow::Result<std::process::Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("mongo/database");
    Ok(Command::new(script).arg(what).arg(folder).output()?)
}

/// The script's word for "there is none, and none can be made here": its exit code.
pub const NONE: i32 = 75;
