//! What every backend must do, as one suite that each backend's tests call.
//!
//! Must not know a backend: it gets a function that opens the same registry again. Leases are
//! short, and every wait is for a state, never for a duration.

mod accounts;
mod apps;
mod nodes;
mod streams;
mod tokens;

use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::config::Role;
use headwater_api::documents::{Grant, NodeDocument, NodeIncarnation, StreamOffer, TokenDocument, TokenKind};

use crate::{Registry, Timing};

/// Leases that are long compared with one operation on a busy test machine, and short compared with
/// a test.
pub(crate) const TIMING: Timing = Timing {
    heartbeat_interval: Duration::from_millis(500),
    lease: Duration::from_millis(1_500),
    node_retention: Duration::from_secs(60),
    stream_retention: Duration::from_secs(60),
};

/// Leases and retentions that end at once.
pub(crate) const SHORT_TIMING: Timing = Timing {
    heartbeat_interval: Duration::from_millis(10),
    lease: Duration::from_millis(30),
    node_retention: Duration::from_millis(30),
    stream_retention: Duration::from_millis(30),
};

/// Runs the whole suite. `open` returns the same, initially empty, registry each time; the previous
/// handle is dropped first.
pub(crate) async fn check<R: Registry + Clone + 'static>(open: impl AsyncFn(Timing) -> R) {
    new_registry_contains_only_the_default_apps(&open(TIMING).await).await;
    apps::check(&async || open(TIMING).await).await;
    accounts::check(&open(TIMING).await).await;
    tokens::check(&open(TIMING).await).await;
    probe_returns_the_time(&open(TIMING).await).await;
    nodes::check(&open(TIMING).await).await;
    streams::check(&open(TIMING).await).await;
    nodes::dead_node_expires(&open(SHORT_TIMING).await).await;
    streams::epochs_grow_after_a_stream_has_expired(&open(SHORT_TIMING).await).await;
}

async fn new_registry_contains_only_the_default_apps(registry: &impl Registry) {
    assert_eq!(apps::names(registry).await, ["LiveApp", "live"]);
    assert_eq!(registry.nodes().await.unwrap(), []);
    assert_eq!(registry.streams().await.unwrap(), []);
    assert_eq!(registry.users().await.unwrap(), []);
}

async fn probe_returns_the_time(registry: &impl Registry) {
    let before = registry.probe().await.unwrap();
    assert!(before > 1_700_000_000_000);
    until("a later time", async || (registry.probe().await.unwrap() > before).then_some(())).await;
}

/// Waits until `state` returns a value, up to a minute, which is for very busy machines.
pub(crate) async fn until<T>(what: &str, state: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn node(id: &str) -> NodeDocument {
    NodeDocument {
        id: id.to_owned(),
        role: Role::Origin,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        relay: vec!["10.0.0.1:5000".parse().unwrap()],
        url: Some("http://192.0.2.1:5080".to_owned()),
        group: String::new(),
        zone: "eu-central-1a".to_owned(),
        instance_type: "c7g.large".to_owned(),
        image: "ami-1".to_owned(),
        version: "1.2.3".to_owned(),
        started_at_ms: 1_700_000_000_000,
    }
}

pub(crate) fn offer(port: u16) -> StreamOffer {
    StreamOffer {
        relay: vec![([10, 0, 0, 1], port).into()],
        protocol: "rtmp".to_owned(),
        started_at_ms: 1_700_000_000_000,
    }
}

/// A one-time token for playing `live/a`.
pub(crate) fn token(digest: &str, now_ms: u64) -> TokenDocument {
    TokenDocument {
        digest: digest.to_owned(),
        app: "live".to_owned(),
        stream: Some("a".to_owned()),
        grants: Grant::Play,
        kind: TokenKind::OneTime,
        not_before_ms: 0,
        expires_at_ms: now_ms + TOKEN_VALIDITY_MS,
        created_at_ms: now_ms,
        used_at_ms: None,
        revoked_at_ms: None,
    }
}

const TOKEN_VALIDITY_MS: u64 = 600_000;

pub(crate) fn name(s: &str) -> StreamName {
    StreamName::parse(s).unwrap()
}

pub(crate) async fn register(registry: &impl Registry, id: &str) -> NodeIncarnation {
    registry.register(&node(id), None).await.unwrap()
}
