//! What this gateway counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the HLS gateway; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Streams being packaged now.
    pub feeds: Gauge,
    /// Playlists handed out.
    pub playlists: Counter,
    /// Initialisation segments, segments and parts handed out.
    pub resources: Counter,
    /// Bytes of all answers.
    pub bytes: Counter,
    /// Requests that had to wait for something to come.
    pub held: Counter,
    /// Requests that waited in vain.
    pub timed_out: Counter,
    /// Frames that came too fast for a feed.
    pub lost_frames: Counter,
}

impl Metrics {
    /// Makes the counters visible.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("hls_feeds", "Streams being packaged for HLS now", self.feeds.clone());
        let all: [(&str, &str, &Counter); 6] = [
            ("hls_playlists", "HLS playlists handed out", &self.playlists),
            ("hls_resources", "HLS segments, parts and initialisation segments handed out", &self.resources),
            ("hls_sent_bytes", "Bytes of HLS answers", &self.bytes),
            ("hls_held_requests", "HLS requests that waited for something to come", &self.held),
            ("hls_timed_out_requests", "HLS requests that waited in vain", &self.timed_out),
            ("hls_lost_frames", "Frames that came too fast for HLS packaging", &self.lost_frames),
        ];
        for (name, help, counter) in all {
            registry.register(name, help, counter.clone());
        }
    }
}
