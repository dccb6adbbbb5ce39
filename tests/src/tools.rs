//! Third-party programs on PATH. If one is missing, the test is skipped with a printed line, or
//! fails in CI.

use std::path::PathBuf;

/// Path of `program` on PATH.
///
/// Returns `None` if it is not installed, after printing that the test is skipped.
///
/// # Panics
/// If it is not installed and the variable `CI` is set.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let found = env_var("PATH")
        .into_iter()
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        skip_missing(&format!("{program} is not installed"));
    }
    found
}

/// Prints that the test is skipped because something is missing.
///
/// # Panics
/// If the variable `CI` is set.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
pub fn skip_missing(what: &str) {
    assert!(env_var("CI").is_none_or(|v| v.is_empty()), "{what}, and CI skips nothing");
    eprintln!("SKIPPED: {what}");
}

/// Prints that an optional case of a test is skipped. Does not fail in CI.
#[expect(clippy::print_stderr, reason = "a skipped case must be visible")]
pub fn skip_case(what: &str) {
    eprintln!("SKIPPED: {what}");
}

/// Path of a real mongod, from the variable `HEADWATER_TEST_MONGOD`.
pub fn real_mongod_path() -> Option<PathBuf> {
    env_var("HEADWATER_TEST_MONGOD").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// True if GStreamer has this element.
pub fn has_gst_element(name: &str) -> bool {
    let inspect = std::process::Command::new("gst-inspect-1.0").args(["--exists", name]).status();
    inspect.is_ok_and(|status| status.success())
}

#[expect(clippy::disallowed_methods, reason = "PATH, CI and HEADWATER_TEST_MONGOD are not part of the configuration")]
fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
