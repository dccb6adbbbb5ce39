//! Writes files that hold secrets. Must not know what they hold.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes `text` and a newline to a file that only this user can read, from its first byte on. An
/// existing file is replaced atomically, including its permissions.
pub(crate) fn write_private(folder: &Path, name: &str, text: &str) -> std::io::Result<PathBuf> {
    let (path, draft) = (folder.join(name), folder.join(format!("{name}.draft")));
    match std::fs::remove_file(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{text}")?;
    std::fs::rename(draft, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn file_is_private_even_if_it_replaces_a_public_file() {
        let folder = std::env::temp_dir().join(format!("headwaterd-private-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("s"), "an earlier one").unwrap();
        let path = write_private(&folder, "s", "hunter2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
