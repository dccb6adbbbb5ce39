//! The contract, and files that cannot be opened.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::file::{FORMAT_KEY, META, io_cause};
use super::{Embedded, FILE_NAME};
use crate::error::Cause;
use crate::{RegistryError, contract};

/// A folder that is removed at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-registry-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sentence(error: &RegistryError) -> String {
    headwater_api::error::Chain(error).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_registry_fulfils_the_contract() {
    let folder = Folder::new("contract");
    contract::check(async |timing| Embedded::open_with(&folder.0, timing).unwrap()).await;
}

#[test]
fn second_open_reports_that_the_file_is_in_use() {
    let folder = Folder::new("locked");
    let _first = Embedded::open(&folder.0).unwrap();
    let error = Embedded::open(&folder.0).unwrap_err();
    assert!(matches!(error, RegistryError::Locked { .. }), "{error:?}");
    assert!(sentence(&error).contains("in use by another process"));
}

#[test]
fn file_that_is_no_registry_is_reported_and_not_changed() {
    let folder = Folder::new("garbage");
    let path = folder.0.join(FILE_NAME);
    for garbage in [&b""[..], b"not a database", &[0x5a; 70_000]] {
        std::fs::write(&path, garbage).unwrap();
        let error = Embedded::open(&folder.0).unwrap_err();
        assert!(matches!(error, RegistryError::Corrupt { .. }), "{error:?}");
        assert!(sentence(&error).contains(FILE_NAME));
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}

#[test]
fn truncated_registry_is_an_error_and_not_a_panic() {
    let folder = Folder::new("short");
    let path = folder.0.join(FILE_NAME);
    drop(Embedded::open(&folder.0).unwrap());
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 64, 512, 4096, 8192, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Embedded::open(&folder.0).map(drop).unwrap_err();
        assert!(sentence(&error).contains(FILE_NAME), "{length}: {error:?}");
    }
}

#[test]
fn damaged_registry_prints_no_panic() {
    // The test above, in a process of its own, so that its standard error can be read.
    let test = "embedded::tests::truncated_registry_is_an_error_and_not_a_panic";
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program).args(["--exact", test, "--nocapture"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    let passed = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(passed && !printed.contains("panicked"), "{printed}");
}

#[test]
fn registry_file_can_be_read_only_by_its_owner() {
    let folder = Folder::new("mode");
    let path = folder.0.join(FILE_NAME);
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(Embedded::open(&folder.0).unwrap());
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(Embedded::open(&folder.0).unwrap());
    assert_eq!(mode(), 0o600);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "no draft is left");
}

#[test]
fn full_disk_is_the_source_of_a_write_error() {
    let full: Cause = Box::new(redb::CommitError::Storage(redb::StorageError::Io(ErrorKind::StorageFull.into())));
    let cause = io_cause(full);
    assert_eq!(cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind), Some(ErrorKind::StorageFull));
}

#[test]
fn missing_folder_is_reported_with_its_path() {
    let error = Embedded::open(Path::new("/nonexistent/headwater")).unwrap_err();
    assert!(matches!(error, RegistryError::Open { .. }), "{error:?}");
    assert!(sentence(&error).contains("/nonexistent/headwater/registry.redb: No such file or directory"));
}

#[test]
fn file_with_another_format_is_refused() {
    let folder = Folder::new("format");
    let registry = Embedded::open(&folder.0).unwrap();
    registry
        .write(META, |meta| {
            meta.insert(FORMAT_KEY, &b"0"[..])?;
            Ok(())
        })
        .unwrap();
    drop(registry);
    assert!(matches!(Embedded::open(&folder.0), Err(RegistryError::Version { .. })));
}
