//! Identifies HLS players, which have no session.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use crate::http::serve::client::Client;
use crate::runtime::trusted_proxies::client_network;

/// Identifies a player by the address of its client (IPv6: by its /64 network). Only used to count
/// viewers.
pub(in crate::http) fn viewer_id(client: Client) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(client_network(client.address))
}
