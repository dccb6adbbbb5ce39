//! The order in which a node ends, so that nobody is cut without having been told.
//!
//! ```text
//!   drain ----------------> feeding ------------------> closing
//!   nobody is let in,       publishers are asked to     the web server and WebRTC end:
//!   pages are told to move  go, relays end              what is left is cut
//! ```
//!
//! A node that is alone has nobody to send its viewers to: it does all three at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// What each step is told by.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    /// Cancelled from outside.
    pub drain: CancellationToken,
    /// Streams end.
    pub feeding: CancellationToken,
    /// Viewers end.
    pub closing: CancellationToken,
}

impl Farewell {
    /// Takes the steps, within `deadline` of the first.
    pub async fn run(self, hub: Hub, deadline: Duration) {
        self.drain.cancelled().await;
        let begun = Instant::now();
        if hub.is_in_cluster() {
            // Streams that come in here go on for half of the time, so that pages which watch them here can move first.
            until_none(&hub, begun + deadline / 2, |webrtc, _| webrtc).await;
        }
        self.feeding.cancel();
        if hub.is_in_cluster() {
            let left = until_none(&hub, begun + deadline.saturating_sub(LAST), |webrtc, hls| webrtc + hls).await;
            if left > 0 {
                log::warn!(viewers = left; "viewers did not move in time and are cut");
            } else {
                log::info!(elapsed_ms = begun.elapsed().as_millis(); "all viewers have moved");
            }
        }
        self.closing.cancel();
    }
}

/// Waits until nobody is left of those that `count` picks from viewers over WebRTC and HLS; gives how many are.
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
/// Kept of the deadline for closing what is left.
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
    async fn a_node_waits_for_its_viewers_to_move_and_no_longer_than_it_may() {
        let secs = Duration::from_secs;
        assert_eq!(steps(false, Some(secs(100))).await, [secs(0), secs(0)], "alone there is nowhere to go");
        assert_eq!(steps(true, None).await, [secs(0), secs(0)]);
        let [fed, closed] = steps(true, Some(secs(2))).await;
        assert!(fed >= secs(2) && closed < secs(3), "{fed:?} {closed:?}");
        assert_eq!(steps(true, Some(secs(100))).await, [secs(5), secs(9)]);
    }
}
