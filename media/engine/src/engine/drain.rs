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

use crate::hub::Hub;
use crate::runtime::stages::{DrainStages, Stages};

/// Adds the task that cancels the stages in order.
pub(super) fn mount(hub: Hub, stages: &mut Stages) {
    stages.add_serving(run(stages.drain().clone(), hub, stages.deadline()));
}

/// Waits for `started`, then runs the other stages within `deadline` of it.
async fn run(stages: DrainStages, hub: Hub, deadline: Duration) {
    stages.started.cancelled().await;
    let started_at = Instant::now();
    if hub.is_in_cluster() {
        // Streams published here continue for up to half of the time, so that their WebRTC
        // viewers can move first.
        wait_for_viewers(&hub, started_at + deadline / 2, |webrtc, _| webrtc).await;
    }
    stages.stop_publishers.cancel();
    if hub.is_in_cluster() {
        let close_at = started_at + deadline.saturating_sub(CLOSE_GRACE);
        let left = wait_for_viewers(&hub, close_at, |webrtc, hls| webrtc + hls).await;
        if left > 0 {
            log::warn!(viewers = left; "viewers did not move in time and are disconnected");
        } else {
            log::info!(elapsed_ms = started_at.elapsed().as_millis(); "all viewers have moved");
        }
    }
    stages.close_viewers.cancel();
}

/// Waits until `count(webrtc, hls)`, summed over all streams, is 0 or `until` has passed. Returns
/// the last sum.
async fn wait_for_viewers(hub: &Hub, until: Instant, count: impl Fn(u64, u64) -> u64) -> u64 {
    loop {
        let left = hub.streams().iter().map(|s| s.viewers()).map(|by| count(by.webrtc, by.hls)).sum();
        if left == 0 || Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The part of the deadline that is reserved for closing the remaining connections.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use headwater_api::StreamName;

    use super::*;
    use crate::hub::{Limits, ViewerKind};

    async fn stage_times(in_cluster: bool, viewer: Option<Duration>) -> [Duration; 2] {
        let hub = Hub::new(Limits::default());
        if in_cluster {
            hub.join_cluster(Box::new(NoRemoteStreams), None);
        }
        let producer = hub.publish(&StreamName::parse("live/a").unwrap(), "rtmp").unwrap();
        if let Some(stays) = viewer {
            let guard = producer.stream().count_viewer(ViewerKind::Webrtc);
            tokio::spawn(async move {
                tokio::time::sleep(stays).await;
                drop(guard);
            });
        }
        let stages = DrainStages::default();
        let start = Instant::now();
        stages.started.cancel();
        tokio::spawn(run(stages.clone(), hub, Duration::from_secs(10)));
        stages.stop_publishers.cancelled().await;
        let publishers_stopped = start.elapsed();
        stages.close_viewers.cancelled().await;
        drop(producer);
        [publishers_stopped, start.elapsed()]
    }

    #[derive(Debug)]
    struct NoRemoteStreams;

    impl crate::hub::RemoteStreams for NoRemoteStreams {
        fn fetch(&self, _: &crate::hub::RelayedStreams, _: &StreamName) -> crate::hub::FetchFuture {
            Box::pin(async { Err(crate::hub::FindError::NotPublished) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_viewers_to_move_until_its_deadline() {
        let secs = Duration::from_secs;
        assert_eq!(stage_times(false, Some(secs(100))).await, [secs(0), secs(0)], "a standalone node does not wait");
        assert_eq!(stage_times(true, None).await, [secs(0), secs(0)]);
        let [publishers_stopped, closed] = stage_times(true, Some(secs(2))).await;
        assert!(publishers_stopped >= secs(2) && closed < secs(3), "{publishers_stopped:?} {closed:?}");
        assert_eq!(stage_times(true, Some(secs(100))).await, [secs(5), secs(9)]);
    }
}
