//! Divides the open files that the system permits among the listeners. A pure function.
//!
//! Every connection is an open file. If more connections were accepted than files may be open,
//! clients of one listener could take the files that the health listener, relays and recordings
//! need, and the engine could not even accept the connections that it should refuse.
//!
//! ```text
//!   permitted = own use + media + relay connections + HTTP connections + RTMP connections
//! ```

/// Maximum numbers of connections, by listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// HTTP and HTTPS.
    pub http: usize,
    /// RTMP and RTMPS.
    pub rtmp: usize,
    /// Relays to edges; 0 without a relay.
    pub relay: usize,
}

/// So few files may be open that the engine could not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{permitted} files may be open at the same time, and the engine needs {MIN_PERMITTED} at least: raise LimitNOFILE \
     in the unit, or `ulimit -Hn`"
)]
pub struct TooFewDescriptors {
    permitted: u64,
}

/// Lowers `wanted` until it fits into `permitted` open files.
///
/// # Errors
/// If too few files may be open for any sensible limit.
pub fn fit(wanted: ConnectionLimits, permitted: u64) -> Result<ConnectionLimits, TooFewDescriptors> {
    if permitted < MIN_PERMITTED {
        return Err(TooFewDescriptors { permitted });
    }
    let permitted = usize::try_from(permitted).unwrap_or(usize::MAX);
    let for_connections = permitted - OWN_USE - permitted / MEDIA_SHARE;
    // Relays come first: behind each of them are all viewers of an edge.
    let relay = wanted.relay.min(for_connections / RELAY_SHARE);
    let rest = for_connections - relay;
    let clients = wanted.http.saturating_add(wanted.rtmp);
    if clients <= rest {
        return Ok(ConnectionLimits { relay, ..wanted });
    }
    // In the proportion of the settings, rounded down; the product fits into 128 bits.
    let share = |wanted: usize| usize::try_from(wanted as u128 * rest as u128 / clients as u128).unwrap_or(rest).max(1);
    Ok(ConnectionLimits { http: share(wanted.http), rtmp: share(wanted.rtmp), relay })
}

/// The health listener (64), relay handshakes (128), the UDP sockets, timers and queues of all
/// workers, the registry's connections, probes, files and the log.
const OWN_USE: usize = 384;
/// One part in this many for media: memory files of HLS segments, recordings, and relay connections
/// to other nodes.
const MEDIA_SHARE: usize = 8;
/// At most one part in this many for relay connections from edges.
const RELAY_SHARE: usize = 4;
/// Leaves 64 connections.
const MIN_PERMITTED: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: ConnectionLimits = ConnectionLimits { http: 20_000, rtmp: 10_000, relay: 4_000 };

    #[test]
    fn limits_that_fit_are_not_changed() {
        assert_eq!(fit(DEFAULTS, 524_288), Ok(DEFAULTS));
        let small = ConnectionLimits { http: 100, rtmp: 50, relay: 0 };
        assert_eq!(fit(small, 1_024), Ok(small));
    }

    #[test]
    fn lowered_limits_leave_files_for_everything_else() {
        for permitted in [512, 600, 1_024, 4_096, 20_000, 40_000] {
            for relay in [0, 4_000] {
                let fitted = fit(ConnectionLimits { relay, ..DEFAULTS }, permitted).unwrap();
                let used = fitted.http + fitted.rtmp + fitted.relay;
                let left = usize::try_from(permitted).unwrap() - used;
                assert!(left >= OWN_USE, "{permitted}: {fitted:?} leaves {left}");
                assert!(fitted.http >= 20 && fitted.rtmp >= 10, "{permitted}: {fitted:?}");
                assert!(relay == 0 || fitted.relay >= 16, "{permitted}: {fitted:?}");
                assert!(fitted.http <= DEFAULTS.http && fitted.rtmp <= DEFAULTS.rtmp && fitted.relay <= relay);
            }
        }
        assert_eq!(fit(DEFAULTS, 1_024), Ok(ConnectionLimits { http: 256, rtmp: 128, relay: 128 }));
    }

    #[test]
    fn engine_does_not_start_with_too_few_files() {
        let sentence = fit(DEFAULTS, 511).unwrap_err().to_string();
        assert!(sentence.starts_with("511 files may be open at the same time, and the engine needs 512"), "{sentence}");
    }
}
