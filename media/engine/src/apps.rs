//! Which apps exist, as every gateway asks before it lets a name in.
//!
//! Read from the registry once at start; a gateway must not know where documents are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The names of all apps. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Apps(Arc<BTreeSet<String>>);

impl Apps {
    /// These apps and no others.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }

    /// True if there is an app of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
