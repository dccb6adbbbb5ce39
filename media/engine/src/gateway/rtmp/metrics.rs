//! Counters of the RTMP gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the RTMP gateway; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections closed at once because `max_connections` were open.
    pub turned_away: Counter,
    /// Connections closed because the peer sent invalid data.
    pub protocol_errors: Counter,
    /// Publish requests refused.
    pub publish_refused: Counter,
    /// Play requests refused.
    pub play_refused: Counter,
    /// Bytes received; added when a connection closes.
    pub received_bytes: Counter,
    /// Bytes sent; added when a connection closes.
    pub sent_bytes: Counter,
    /// Packets skipped because a player was too slow.
    pub lost_packets: Counter,
}

impl Metrics {
    /// Registers the counters for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let all: [(&str, &str, &Counter); 8] = [
            ("rtmp_connections_accepted", "RTMP connections accepted", &self.accepted),
            (
                "rtmp_connections_turned_away",
                "RTMP connections closed because the limit was reached",
                &self.turned_away,
            ),
            (
                "rtmp_protocol_errors",
                "RTMP connections closed because the peer sent invalid data",
                &self.protocol_errors,
            ),
            ("rtmp_publish_refused", "RTMP publish requests refused", &self.publish_refused),
            ("rtmp_play_refused", "RTMP play requests refused", &self.play_refused),
            ("rtmp_received_bytes", "Bytes received on closed RTMP connections", &self.received_bytes),
            ("rtmp_sent_bytes", "Bytes sent on closed RTMP connections", &self.sent_bytes),
            ("rtmp_lost_packets", "RTMP packets skipped because a player was too slow", &self.lost_packets),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
        registry.register("rtmp_connections", "RTMP connections open now", self.connections.clone());
    }
}
