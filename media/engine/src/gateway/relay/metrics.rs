//! What this gateway counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the relay; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Edges served now.
    pub edges: Gauge,
    /// Streams pulled now.
    pub pulls: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections closed at once because there were too many.
    pub turned_away: Counter,
    /// Connections closed before they had proved that they know the cluster secret.
    pub strangers: Counter,
    /// Times a pulled stream went on after its source was lost.
    pub resumed: Counter,
    /// Times a pulled stream was given up because no source came back.
    pub given_up: Counter,
    /// Frames left out because an edge was too slow.
    pub lost_frames: Counter,
}

impl Metrics {
    /// Makes the counters visible.
    pub fn register(&self, registry: &mut Registry) {
        let all: [(&str, &str, &Counter); 6] = [
            ("relay_connections_accepted", "Relay connections accepted", &self.accepted),
            ("relay_connections_turned_away", "Relay connections beyond the limit", &self.turned_away),
            ("relay_strangers", "Relay connections closed without proof of the cluster secret", &self.strangers),
            ("relay_resumed", "Pulled streams that went on after their source was lost", &self.resumed),
            ("relay_given_up", "Pulled streams given up because no source came back", &self.given_up),
            ("relay_lost_frames", "Frames left out because an edge was too slow", &self.lost_frames),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
        registry.register("relay_edges", "Edges that a stream is sent to now", self.edges.clone());
        registry.register("relay_pulls", "Streams pulled from other nodes now", self.pulls.clone());
    }
}
