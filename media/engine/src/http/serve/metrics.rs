//! Counters of the web server.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Connection counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Connections closed immediately because the limit was reached.
    pub turned_away: Counter,
}

impl Metrics {
    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_connections", "HTTP connections open now", self.connections.clone());
        registry.register("http_connections_accepted", "HTTP connections accepted", self.accepted.clone());
        let turned_away = self.turned_away.clone();
        registry.register("http_connections_turned_away", "HTTP connections beyond the limit", turned_away);
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn count_connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
