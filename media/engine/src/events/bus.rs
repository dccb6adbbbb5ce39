//! Passes events on: to the log and the counters at once, to subscriptions through a bounded queue.
//! One client cannot flood the log; counters and subscriptions receive every event.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::events::counters::Counters;
use crate::events::{Event, log};
use crate::runtime::log_limiter::LogLimiter;
use crate::runtime::stages::Stages;

/// Events that a subscription may be behind. Beyond that it loses the oldest.
const DEPTH_EVENTS: usize = 1_024;

/// A handle for reporters and subscribers; clones share the bus.
#[derive(Debug, Clone)]
pub struct EventBus {
    event_tx: broadcast::Sender<Arc<Event>>,
    counters: Counters,
    log_limiter: Arc<LogLimiter>,
}

impl Default for EventBus {
    fn default() -> Self {
        let (event_tx, _) = broadcast::channel(DEPTH_EVENTS);
        Self { event_tx, counters: Counters::default(), log_limiter: Arc::default() }
    }
}

impl EventBus {
    /// Adds the counters to the stages.
    pub fn mount(&self, stages: &mut Stages) {
        self.counters.register(stages.own_metrics());
    }

    /// Reports an event. Never waits.
    pub fn emit(&self, event: Event) {
        if event.peer().is_none_or(|peer| self.log_limiter.admits(event.kind(), peer.ip())) {
            log::write(&event);
        }
        self.counters.count(&event);
        // The error means that there is no subscription.
        let _ = self.event_tx.send(Arc::new(event));
    }

    /// Receives every event from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { event_rx: self.event_tx.subscribe(), counters: self.counters.clone() }
    }
}

/// Receives events in order.
#[derive(Debug)]
pub struct Subscription {
    event_rx: broadcast::Receiver<Arc<Event>>,
    counters: Counters,
}

impl Subscription {
    /// The next event, or `None` once no reporter is left. Skips, and counts, events that were lost
    /// because this subscription was more than `DEPTH_EVENTS` behind.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            match self.event_rx.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(lost)) => {
                    self.counters.lost.inc_by(lost);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::events::Protocol;

    fn started(n: usize) -> Event {
        let peer = ([127, 0, 0, 1], 1).into();
        Event::PublishStarted { stream: format!("live/{n}"), protocol: Protocol::Rtmp, peer }
    }

    fn metrics(bus: &EventBus) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        bus.counters.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }

    #[tokio::test]
    async fn subscription_receives_events_in_order_until_the_last_reporter_is_dropped() {
        let bus = EventBus::default();
        let mut subscription = bus.subscribe();
        bus.emit(started(1));
        bus.clone().emit(started(2));
        drop(bus);
        assert_eq!(subscription.next().await.as_deref(), Some(&started(1)));
        assert_eq!(subscription.next().await.as_deref(), Some(&started(2)));
        assert_eq!(subscription.next().await, None);
    }

    #[tokio::test]
    async fn slow_subscription_loses_the_oldest_events_and_counts_them() {
        let bus = EventBus::default();
        let mut subscription = bus.subscribe();
        for n in 0..DEPTH_EVENTS + 3 {
            bus.emit(started(n));
        }
        assert_eq!(subscription.next().await.as_deref(), Some(&started(3)));
        let text = metrics(&bus);
        assert!(text.contains("events_lost_total 3"), "{text}");
        let total = DEPTH_EVENTS + 3;
        assert!(
            text.contains(&format!("events_total{{event=\"publish_started\",protocol=\"rtmp\"}} {total}")),
            "{text}"
        );
    }
}
