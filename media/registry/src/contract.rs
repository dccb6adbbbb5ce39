//! What every store behind [`Registry`] must do, as one suite that each store's tests call.
//!
//! Must not know a store: it is handed a function that opens the same one again. Leases are short and every wait is for
//! a state, never for a time.

mod documents;
mod nodes;
mod streams;

use std::time::{Duration, Instant};

use headwater_api::StreamName;
use headwater_api::config::Role;
use headwater_api::node::{Life, NodeDocument};
use headwater_api::stream::StreamOffer;

use crate::{Registry, Timing};

/// Leases that are long against one operation of a busy test machine, and short against a test.
pub(crate) const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(500),
    lease: Duration::from_millis(1_500),
    keep_nodes: Duration::from_secs(60),
    keep_streams: Duration::from_secs(60),
};

/// Leases and memories that end at once.
pub(crate) const BRIEF: Timing = Timing {
    heartbeat: Duration::from_millis(10),
    lease: Duration::from_millis(30),
    keep_nodes: Duration::from_millis(30),
    keep_streams: Duration::from_millis(30),
};

/// Runs the whole suite. `open` gives the same, at first empty, store each time; the one before is dropped first.
pub(crate) async fn check<R: Registry + Clone + 'static>(open: impl AsyncFn(Timing) -> R) {
    documents::check(&async || open(TIMING).await).await;
    nodes::check(&open(TIMING).await).await;
    streams::check(&open(TIMING).await).await;
    nodes::a_dead_node_is_forgotten(&open(BRIEF).await).await;
    streams::epochs_grow_even_past_oblivion(&open(BRIEF).await).await;
}

/// Waits until `state` holds, and gives what it gave. A minute is for a machine that is very busy.
pub(crate) async fn until<T>(what: &str, state: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = state().await {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
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

pub(crate) fn name(s: &str) -> StreamName {
    StreamName::parse(s).unwrap()
}

pub(crate) async fn register(registry: &impl Registry, id: &str) -> Life {
    registry.register(&node(id), None).await.unwrap()
}
