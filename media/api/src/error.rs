//! How an error is shown: with its causes on one line, and as JSON to HTTP clients.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prints an error and its causes on one line, joined by `: `.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |e| e.source()).try_for_each(|e| write!(f, ": {e}"))
    }
}

/// The body of every HTTP error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// Stable, for programs: `stream_not_found`, `b_frames`, …
    pub error: String,
    /// One sentence, for people.
    pub message: String,
    /// The same thing on another node, that may have room where this one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

/// Process exit codes (sysexits.h), the same for both programs.
pub mod exit {
    /// Bad command line arguments.
    pub const USAGE: u8 = 64;
    /// Something the process needs is not to be had (a port is taken, the engine never came up); trying again may help.
    pub const UNAVAILABLE: u8 = 69;
    /// A bug.
    pub const SOFTWARE: u8 = 70;
    /// Bad configuration, or a data folder that cannot be written; trying again will not help.
    pub const CONFIG: u8 = 78;
}
