//! Timeouts and intervals of the relay, which tests shorten.

use std::time::Duration;

/// Timeouts and intervals of the relay.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For connecting and the handshake, per address.
    pub connect_timeout: Duration,
    /// Interval of pings.
    pub ping_interval: Duration,
    /// A source that sends nothing for this duration is lost.
    pub silence_timeout: Duration,
    /// If no frame was sent for this duration, a heartbeat that names the owner is sent, at most
    /// twice as late.
    pub heartbeat_interval: Duration,
    /// If neither a frame nor a heartbeat of the owner has arrived for this duration, the stream is
    /// resolved again, and once more each time it has passed.
    pub owner_check_interval: Duration,
    /// A pull ends after this duration without viewers.
    pub no_viewers_timeout: Duration,
    /// How long a new source is searched for after one was lost, while viewers wait. Longer than
    /// the lease of a stream.
    pub search_timeout: Duration,
    /// How long a viewer waits for a stream that is not here yet.
    pub fetch_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_secs(1),
            silence_timeout: Duration::from_secs(3),
            heartbeat_interval: Duration::from_millis(500),
            owner_check_interval: Duration::from_millis(1_500),
            no_viewers_timeout: Duration::from_secs(5),
            search_timeout: Duration::from_secs(20),
            fetch_timeout: Duration::from_secs(5),
        }
    }
}
