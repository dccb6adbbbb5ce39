//! Files that only their owner may read, written atomically; and how a full disk is recognized.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes `text` and a line feed into a file that only this user can read, from its first byte on.
/// Atomically replaces an existing file, including its permissions.
///
/// # Errors
/// If the file cannot be written; an existing file is then unchanged.
pub fn write_private(folder: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let (path, draft) = (folder.join(name), folder.join(format!("{name}.draft")));
    let written = write_draft(&draft, text).and_then(|()| std::fs::rename(&draft, &path));
    if written.is_err() {
        // A partial draft is of no use; the cause is already known.
        let _ = std::fs::remove_file(&draft);
    }
    written.map(|()| path)
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    writeln!(file, "{text}")
}

/// True if the cause is a full disk or an exhausted quota: a condition that an operator removes
/// while the node serves.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// [`is_disk_full`] of any cause in the chain of an error.
pub fn is_caused_by_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source()).any(|e| {
        // Libraries wrap an error into an error; `io::Error` itself skips the one it wraps.
        e.downcast_ref::<io::Error>().is_some_and(is_disk_full)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn private_file_replaces_a_public_one_and_leaves_no_draft() {
        let folder = std::env::temp_dir().join(format!("headwater-private-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a"), "public").unwrap();
        std::fs::write(folder.join("a.draft"), "left by a crash").unwrap();
        let path = write_private(&folder, "a", "secret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn full_disk_is_recognized_behind_other_errors() {
        let full = || std::fs::write("/dev/full", "x").unwrap_err();
        assert!(is_disk_full(&full()) && is_caused_by_full_disk(&full()));
        #[derive(Debug)]
        struct Wrapper(io::Error);
        impl std::fmt::Display for Wrapper {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("could not write")
            }
        }
        impl std::error::Error for Wrapper {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert!(is_caused_by_full_disk(&Wrapper(full())));
        assert!(!is_caused_by_full_disk(&Wrapper(io::ErrorKind::PermissionDenied.into())));
    }
}
