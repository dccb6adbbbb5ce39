//! How errors leave the program: with their causes on one line, as JSON to HTTP clients, and as
//! exit codes.

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
    /// Stable identifier: `stream_not_found`, `b_frames`, …
    pub error: String,
    /// One sentence for people.
    pub message: String,
    /// URL of the same resource on another node, if this node is full or draining.
    #[serde(default, rename = "elsewhere", skip_serializing_if = "Option::is_none")]
    pub alternative_url: Option<String>,
}

/// Process exit codes (sysexits.h), the same for both programs.
pub mod exit {
    /// Bad command line arguments.
    pub const USAGE: u8 = 64;
    /// Something that the process needs is unavailable (a port is in use, the engine did not
    /// start); a later attempt may succeed.
    pub const UNAVAILABLE: u8 = 69;
    /// An internal error: a bug.
    pub const SOFTWARE: u8 = 70;
    /// Bad configuration, or a data folder that is not writable; a later attempt will not succeed.
    pub const CONFIG: u8 = 78;
}
