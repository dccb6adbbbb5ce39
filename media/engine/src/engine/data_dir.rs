//! The data folder: created at the start, and the file in it that names the engine's listeners.

use std::path::Path;

use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_program::private_file::{is_disk_full, write_private};

/// Creates the data folder and checks that it is writable. A full disk is no error: `/readyz`
/// reports it, and the node serves.
pub(super) fn prepare(data_dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let probe = data_dir.join(PROBE_FILE);
    let written = std::fs::write(&probe, b"headwater").and_then(|()| std::fs::remove_file(&probe));
    written.or_else(|e| if is_disk_full(&e) { Ok(()) } else { Err(e) })
}

/// Removes the endpoints file of an engine that was killed. Must follow the registry's lock: the
/// file may belong to a running engine until then.
pub(super) fn remove_stale_endpoints(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(data_dir.join(ENDPOINTS_FILE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes the endpoints file atomically, readable only by this user.
pub(super) fn write_endpoints(data_dir: &Path, endpoints: &Endpoints) -> std::io::Result<()> {
    write_private(data_dir, ENDPOINTS_FILE, &serde_json::to_string_pretty(endpoints)?).map(drop)
}

/// Removes the endpoints file: it must not outlive the engine.
pub(super) fn remove_endpoints(data_dir: &Path) {
    // Ignore that it is already removed.
    let _ = std::fs::remove_file(data_dir.join(ENDPOINTS_FILE));
}

const PROBE_FILE: &str = ".write-probe";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("headwater-data-dir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn endpoints_file_can_be_read_only_by_its_owner() {
        let folder = folder("endpoints");
        let port = |n: u16| ([127, 0, 0, 1], n).into();
        let (http, rtmp, health) = (port(1), port(2), port(3));
        let endpoints = Endpoints {
            pid: 7,
            http: Some(http),
            https: None,
            self_signed_fingerprint: None,
            rtmp: Some(rtmp),
            rtmps: None,
            relay: None,
            webrtc: vec![],
            health,
        };
        write_endpoints(&folder, &endpoints).unwrap();
        let path = folder.join(ENDPOINTS_FILE);
        assert_eq!(serde_json::from_slice::<Endpoints>(&std::fs::read(&path).unwrap()).unwrap(), endpoints);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn full_disk_is_no_error_and_an_unwritable_folder_is_one() {
        let folder = folder("full");
        for (target, usable) in [("/dev/full", true), ("/nonexistent/x", false)] {
            symlink(target, folder.join(PROBE_FILE)).unwrap();
            assert_eq!(prepare(&folder).is_ok(), usable, "{target}");
            let _ = std::fs::remove_file(folder.join(PROBE_FILE));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
