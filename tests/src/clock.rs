//! A wrong wall clock for a program and its children: Debian's libfaketime, which reads the offset
//! from a file. Monotonic clocks stay correct, as they do on a machine without a time server.

use std::path::PathBuf;

use crate::temp::TempDir;
use crate::tools;

/// The wall clock of programs that run with [`FakeClock::environment`]. Correct at first.
#[derive(Debug)]
pub struct FakeClock(TempDir);

impl FakeClock {
    /// Creates a clock. Returns `None` if faketime is not installed; the skip is printed.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn new() -> anyhow::Result<Option<Self>> {
        if tools::find_program("faketime").is_none() {
            return Ok(None);
        }
        let clock = Self(TempDir::new()?);
        clock.set_offset(0)?;
        Ok(Some(clock))
    }

    /// Sets the offset from the correct time, in seconds. Takes effect within about a second.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn set_offset(&self, offset_secs: i64) -> anyhow::Result<()> {
        // Renamed into place so that no program reads a partial file.
        let written = self.0.write("new", format!("{offset_secs:+}\n"))?;
        Ok(std::fs::rename(written, self.file())?)
    }

    /// Environment of a program that uses this clock.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            // The dynamic loader replaces $LIB with the library folder of the machine.
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
