//! The engine's configuration, as a file that the engine reads at each start.
//!
//! On a full disk the file is in memory instead: a full disk must not keep a node from serving.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use headwater_program::private_file::{is_disk_full, write_private};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The file, which exists as long as this value.
#[derive(Debug)]
pub(crate) struct EngineConfigFile {
    path: PathBuf,
    /// Inherited by the engine, which opens it through `/proc`.
    _in_memory: Option<File>,
}

impl EngineConfigFile {
    /// Writes `text` into the data folder, readable only by this user; into memory if the disk is
    /// full.
    pub(crate) fn write(data_dir: &Path, text: &str) -> io::Result<Self> {
        match write_private(data_dir, FILE_NAME, text) {
            Ok(path) => Ok(Self { path, _in_memory: None }),
            Err(err) if is_disk_full(&err) => {
                log::warn!(err:%; "disk is full, keeping the engine's configuration in memory");
                Self::in_memory(text)
            }
            Err(e) => Err(e),
        }
    }

    fn in_memory(text: &str) -> io::Result<Self> {
        // Without MFD_CLOEXEC, so that the engine inherits it.
        let mut file = File::from(memfd_create(c"headwater-engine.toml", MFdFlags::empty())?);
        file.write_all(text.as_bytes())?;
        Ok(Self { path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(), _in_memory: Some(file) })
    }

    /// Where the engine finds it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// File name inside the data folder.
pub(crate) const FILE_NAME: &str = "engine.toml";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn configuration_file_can_be_read_only_by_its_owner() {
        let folder = std::env::temp_dir().join(format!("headwaterd-engine-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(FILE_NAME), "from an earlier version").unwrap();
        let file = EngineConfigFile::write(&folder, "a = 1").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "a = 1\n");
        assert_eq!(std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn child_process_reads_a_configuration_in_memory_at_each_start() {
        let file = EngineConfigFile::in_memory("a = 1").unwrap();
        for _ in 0..2 {
            let output = std::process::Command::new("cat").arg(file.path()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "a = 1");
        }
    }
}
