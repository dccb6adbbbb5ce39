//! The data folder: created at the start, and the file in it that names the engine's listeners.

use std::path::Path;

use headwater_api::control::{ENDPOINTS_FILE, Endpoints};

/// Creates the data folder and checks that it is writable.
pub(super) fn prepare(data_dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let probe = data_dir.join(".write-probe");
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

/// Removes the endpoints file of an engine that was killed. Must follow the registry's lock: the
/// file may belong to a running engine until then.
pub(super) fn remove_stale_endpoints(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(data_dir.join(ENDPOINTS_FILE)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes the endpoints file atomically.
pub(super) fn write_endpoints(data_dir: &Path, endpoints: &Endpoints) -> std::io::Result<()> {
    let path = data_dir.join(ENDPOINTS_FILE);
    let draft = path.with_extension("json.draft");
    std::fs::write(&draft, serde_json::to_vec_pretty(endpoints)?)?;
    std::fs::rename(draft, path)
}

/// Removes the endpoints file: it must not outlive the engine.
pub(super) fn remove_endpoints(data_dir: &Path) {
    // Ignore that it is already removed.
    let _ = std::fs::remove_file(data_dir.join(ENDPOINTS_FILE));
}
