//! Counts every event by kind and protocol, for `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::events::Event;

type Labels = [(&'static str, &'static str); 2];

/// The counters; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    by_kind: Family<Labels, Counter>,
    /// Events that a subscription lost because it was read too slowly.
    pub(super) lost: Counter,
}

impl Counters {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Publishers and viewers that started, ended or were refused";
        registry.register("events", help, self.by_kind.clone());
        registry.register("events_lost", "Events that a slow subscriber did not receive", self.lost.clone());
    }

    pub(super) fn count(&self, event: &Event) {
        self.by_kind.get_or_create(&[("event", event.kind()), ("protocol", event.protocol().as_str())]).inc();
    }
}
