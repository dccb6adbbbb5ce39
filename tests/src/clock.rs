//! A wall clock that is wrong, for a program and all that it starts: Debian's libfaketime, which reads from a file how wrong it
//! is. Clocks that count from the start of the machine stay right, as they do where time servers are missing.

use std::path::PathBuf;

use crate::temp::Folder;
use crate::tools;

/// The wall clock of whoever runs with [`Clock::environment`]. Right at first.
#[derive(Debug)]
pub struct Clock(Folder);

impl Clock {
    /// `None` without faketime (said aloud).
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn new() -> anyhow::Result<Option<Self>> {
        if tools::find("faketime").is_none() {
            return Ok(None);
        }
        let clock = Self(Folder::new()?);
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// From now on, give or take a second, it is so many seconds ahead; behind if negative.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn set(&self, ahead_secs: i64) -> anyhow::Result<()> {
        // Nobody may read half of it.
        let written = self.0.write("new", format!("{ahead_secs:+}\n"))?;
        Ok(std::fs::rename(written, self.file())?)
    }

    /// What a program must find in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            // The dynamic loader puts the machine's library folder in the place of $LIB.
            ("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1".to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().to_string_lossy().into_owned()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("clock")
    }
}
