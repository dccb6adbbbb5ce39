//! The contract, and files that cannot be opened.

use std::path::{Path, PathBuf};

use super::file::{FORMAT_KEY, META};
use super::{Embedded, FILE_NAME};
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
    for garbage in [&b"not a database"[..], &[0x5a; 70_000]] {
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
