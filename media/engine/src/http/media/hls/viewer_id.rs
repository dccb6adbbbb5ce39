//! Identifies HLS players, which have no session.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::LazyLock;

/// Identifies a player by the first address in `X-Forwarded-For`, which a load balancer adds, else
/// by the address of the connection. Only used to count viewers.
pub(in crate::http) fn viewer_id(forwarded_for: Option<&[u8]>, peer: Option<SocketAddr>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    match forwarded_for.and_then(|list| list.split(|&b| b == b',').next()) {
        Some(first) => KEYS.hash_one(first.trim_ascii()),
        None => peer.map_or(0, |address| KEYS.hash_one(address.ip())),
    }
}
