//! Counters of the relay gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the relay; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Edge connections that a stream is sent to.
    pub edges: Gauge,
    /// Running pulls of streams from other nodes.
    pub pulls: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections refused because `max_connections` were open.
    pub turned_away: Counter,
    /// Connections closed because the peer did not prove that it knows the cluster secret.
    pub unauthenticated: Counter,
    /// Pulled streams that continued after their source was lost.
    pub resumed: Counter,
    /// Pulled streams that ended because no new source was found in time.
    pub given_up: Counter,
    /// Answers to nodes that asked for how long an owner has been silent.
    pub testimonies: Counter,
    /// Frames skipped because an edge was too slow.
    pub lost_frames: Counter,
}

impl Metrics {
    /// Registers the counters for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let all: [(&str, &str, &Counter); 7] = [
            ("relay_connections_accepted", "Relay connections accepted", &self.accepted),
            (
                "relay_connections_turned_away",
                "Relay connections refused because the limit was reached",
                &self.turned_away,
            ),
            (
                "relay_unauthenticated",
                "Relay connections closed because the peer did not prove that it knows the cluster secret",
                &self.unauthenticated,
            ),
            ("relay_resumed", "Pulled streams that continued after their source was lost", &self.resumed),
            ("relay_given_up", "Pulled streams that ended because no new source was found", &self.given_up),
            (
                "relay_testimonies",
                "Answers to nodes that asked for how long the owner of a stream has been silent",
                &self.testimonies,
            ),
            ("relay_lost_frames", "Frames skipped because an edge was too slow", &self.lost_frames),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
        registry.register("relay_edges", "Edge connections that a stream is sent to", self.edges.clone());
        registry.register("relay_pulls", "Streams being pulled from other nodes", self.pulls.clone());
    }
}
