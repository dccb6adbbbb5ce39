//! The stages of a drain, so that clients can move to other nodes before they are disconnected.
//!
//! ```text
//!   started ----------------> stop_publishers ----------> close_viewers
//!   no new clients, web       publishers are asked to     the web server and WebRTC stop:
//!   players are asked to move disconnect, relays stop     remaining viewers are disconnected
//! ```
//!
//! A node outside a cluster has no node to move its clients to: it runs all stages at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// One token per stage.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    /// The drain has started; cancelled by the caller.
    pub drain: CancellationToken,
    /// Publishers and relay links must close.
    pub feeding: CancellationToken,
    /// Viewer connections must close.
    pub closing: CancellationToken,
}

impl Farewell {
    /// Waits for `started`, then runs the other stages within `deadline` of it.
    pub async fn run(self, hub: Hub, deadline: Duration) {
        self.drain.cancelled().await;
        let begun = Instant::now();
        if hub.is_in_cluster() {
            // Streams published here continue for up to half of the time, so that their WebRTC
            // viewers can move first.
            until_none(&hub, begun + deadline / 2, |webrtc, _| webrtc).await;
        }
        self.feeding.cancel();
        if hub.is_in_cluster() {
            let left = until_none(&hub, begun + deadline.saturating_sub(LAST), |webrtc, hls| webrtc + hls).await;
            if left > 0 {
                log::warn!(viewers = left; "viewers did not move in time and are disconnected");
            } else {
                log::info!(elapsed_ms = begun.elapsed().as_millis(); "all viewers have moved");
            }
        }
        self.closing.cancel();
    }
}

/// Waits until `count(webrtc, hls)`, summed over all streams, is 0 or `until` has passed. Returns
/// the last sum.
async fn until_none(hub: &Hub, until: Instant, count: impl Fn(u64, u64) -> u64) -> u64 {
    loop {
        let left = hub.streams().iter().map(|s| s.viewers()).map(|by| count(by.webrtc, by.hls)).sum();
        if left == 0 || Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

const LOOK: Duration = Duration::from_millis(100);
/// The part of the deadline that is reserved for closing the remaining connections.
const LAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use headwater_api::StreamName;

    use super::*;
    use crate::hub::{Limits, ViewerKind};

    async fn steps(in_cluster: bool, viewer: Option<Duration>) -> [Duration; 2] {
        let hub = Hub::new(Limits::default());
        if in_cluster {
            hub.join(Box::new(Nowhere), None);
        }
        let producer = hub.publish(&StreamName::parse("live/a").unwrap(), "rtmp").unwrap();
        if let Some(stays) = viewer {
            let guard = producer.stream().viewer(ViewerKind::Webrtc);
            tokio::spawn(async move {
                tokio::time::sleep(stays).await;
                drop(guard);
            });
        }
        let farewell = Farewell::default();
        let start = Instant::now();
        farewell.drain.cancel();
        tokio::spawn(farewell.clone().run(hub, Duration::from_secs(10)));
        farewell.feeding.cancelled().await;
        let fed = start.elapsed();
        farewell.closing.cancelled().await;
        drop(producer);
        [fed, start.elapsed()]
    }

    #[derive(Debug)]
    struct Nowhere;

    impl crate::hub::Elsewhere for Nowhere {
        fn fetch(&self, _: &Hub, _: &StreamName) -> crate::hub::Fetching {
            Box::pin(async { Err(crate::hub::Missing::Unknown) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_viewers_to_move_until_its_deadline() {
        let secs = Duration::from_secs;
        assert_eq!(steps(false, Some(secs(100))).await, [secs(0), secs(0)], "a standalone node does not wait");
        assert_eq!(steps(true, None).await, [secs(0), secs(0)]);
        let [fed, closed] = steps(true, Some(secs(2))).await;
        assert!(fed >= secs(2) && closed < secs(3), "{fed:?} {closed:?}");
        assert_eq!(steps(true, Some(secs(100))).await, [secs(5), secs(9)]);
    }
}
