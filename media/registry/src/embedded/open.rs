//! Opens the registry of a data folder: the file, its default apps, and the leases of the nodes that
//! it lists.

use std::path::Path;

use super::{Embedded, apps, nodes};
use crate::{RegistryError, Timing};

/// File name inside `data_dir`.
pub const FILE_NAME: &str = "registry.redb";

impl Embedded {
    /// Opens the registry of an existing data folder. Creates it, with the default apps, if there
    /// is none.
    ///
    /// # Errors
    /// If the file cannot be opened, is open in another process, is damaged, or has another format.
    pub fn open(data_dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(data_dir, Timing::default())
    }

    /// [`Embedded::open`] with other lease durations, for tests.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open_with(data_dir: &Path, timing: Timing) -> Result<Self, RegistryError> {
        let registry = Self::open_file(data_dir.join(FILE_NAME), timing)?;
        if registry.check_format()? {
            apps::seed(&registry)?;
        }
        nodes::restore_leases(&registry)?;
        Ok(registry)
    }
}
