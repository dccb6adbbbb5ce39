//! Strangers' programs: found on PATH, or the test is skipped aloud at home and fails in CI.

use std::path::PathBuf;

/// Where `program` is on PATH.
///
/// `None` means: the test cannot run here. It has then been said on standard error.
///
/// # Panics
/// If it is missing and the variable `CI` is set: there every tool must be there.
pub fn find(program: &str) -> Option<PathBuf> {
    let found = variable("PATH")
        .into_iter()
        .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("{program} is not installed"));
    }
    found
}

/// Says that this test is skipped because something is missing here.
///
/// # Panics
/// If the variable `CI` is set.
#[expect(clippy::print_stderr, reason = "skipping aloud is what this is for")]
pub fn missing(what: &str) {
    assert!(variable("CI").is_none_or(|v| v.is_empty()), "{what}, and in CI nothing is skipped");
    eprintln!("SKIPPED: {what}");
}

/// Says that one case of a test is skipped, which no CI has to have.
#[expect(clippy::print_stderr, reason = "skipping aloud is what this is for")]
pub fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
}

/// The program at `HEADWATER_TEST_MONGOD`, a real one, if there is any.
pub fn real_mongod() -> Option<PathBuf> {
    variable("HEADWATER_TEST_MONGOD").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// True if GStreamer has this element.
pub fn gst_element(name: &str) -> bool {
    let inspect = std::process::Command::new("gst-inspect-1.0").args(["--exists", name]).status();
    inspect.is_ok_and(|status| status.success())
}

#[expect(clippy::disallowed_methods, reason = "PATH, CI and what stands on this machine are not our configuration")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
