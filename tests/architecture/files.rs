//! Finds the files of the repository that the rules read.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not part of the repository: git's own, and what `.gitignore` names.
pub(crate) const IGNORED_FOLDERS: &[&str] = &[".git", "target", "node_modules", "__pycache__"];

/// A text file of the repository.
pub(crate) struct Source {
    /// Path relative to the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Root folder of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Paths below `folder` of all files whose names end in `suffix`.
pub(crate) fn find(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !IGNORED_FOLDERS.contains(&name.as_str()) && name != "corpus" {
            found.extend(find(&path, suffix));
        } else if name.ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All Rust sources.
pub(crate) fn rust_sources() -> Vec<Source> {
    let sources: Vec<_> = ["media", "daemon", "tests"].iter().flat_map(|folder| read_all(folder, ".rs")).collect();
    assert!(sources.len() > 100, "only {} Rust files were found", sources.len());
    sources
}

/// All Markdown documents.
pub(crate) fn documents() -> Vec<Source> {
    let documents = read_all("", ".md");
    assert!(documents.len() > 5, "only {} Markdown files were found", documents.len());
    documents
}

/// Fails with one line per fault.
pub(crate) fn assert_no_faults(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

fn read_all(folder: &str, suffix: &str) -> Vec<Source> {
    let files = find(&root().join(folder), suffix).into_iter();
    files
        .map(|file| {
            let path = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            Source { path, text: fs::read_to_string(&file).unwrap() }
        })
        .collect()
}
