//! The timeouts of WebRTC sessions.
//!
//! Plain values. Must not know what a session does when one expires.

use std::time::Duration;

/// Timeouts that tests shorten.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A session whose viewer has sent no valid check for this duration after its offer is closed.
    pub first_check_timeout: Duration,
    /// A session whose viewer has not connected for this duration after its offer is closed.
    pub handshake_timeout: Duration,
    /// A session whose viewer has answered no check of the node for this duration is closed
    /// (RFC 7675 §5.1: 30 s).
    pub consent_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_check_timeout: Duration::from_secs(8),
            handshake_timeout: Duration::from_secs(30),
            consent_timeout: Duration::from_secs(30),
        }
    }
}
