//! Counters of the HLS gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the HLS gateway; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Streams being packaged.
    pub packagers: Gauge,
    /// Playlists served.
    pub playlists: Counter,
    /// Initialisation segments, segments and parts served.
    pub resources: Counter,
    /// Body bytes of all responses.
    pub bytes: Counter,
    /// Requests that waited for a playlist, segment or part.
    pub blocked: Counter,
    /// Requests whose wait timed out.
    pub timed_out: Counter,
    /// Frames that arrived too fast for packaging.
    pub lost_frames: Counter,
}

impl Metrics {
    /// Registers the counters for `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("hls_packagers", "Streams being packaged for HLS", self.packagers.clone());
        let all: [(&str, &str, &Counter); 6] = [
            ("hls_playlists", "HLS playlists served", &self.playlists),
            ("hls_resources", "HLS segments, parts and initialisation segments served", &self.resources),
            ("hls_sent_bytes", "Body bytes of HLS responses", &self.bytes),
            ("hls_blocked_requests", "HLS requests that waited for a playlist, segment or part", &self.blocked),
            ("hls_timed_out_requests", "HLS requests whose wait timed out", &self.timed_out),
            ("hls_lost_frames", "Frames that arrived too fast for HLS packaging", &self.lost_frames),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
    }
}
