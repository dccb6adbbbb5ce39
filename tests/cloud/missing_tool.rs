//! The error of a machine that cannot run a test cluster. Must not know which tool is missing.

/// A tool is missing. The reason was printed before.
#[derive(Debug, thiserror::Error)]
#[error("the test cluster cannot be built on this machine")]
pub(crate) struct MissingTool;
