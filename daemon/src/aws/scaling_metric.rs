//! Publishes the scaling metric: the free share of the node's egress capacity, in percent, once a
//! minute, per cluster and role.
//!
//! An Auto Scaling policy that tracks its average adds nodes before the existing ones are full.

use std::time::Duration;

use headwater_api::documents::Load;
use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::aws::client::Aws;
use crate::aws::lifecycle_hooks::LifecycleState;
use crate::aws::metric::PercentMetric;
use crate::boot::plan::Plan;
use crate::process::engine;

/// Sends the metric while the node serves. Never returns; does nothing on a node without a cluster.
pub(crate) async fn publish_headroom(plan: &Plan, mut state_rx: watch::Receiver<LifecycleState>) {
    let Some(cluster) = &plan.cluster else { return std::future::pending().await };
    let aws = Aws::in_region(&cluster.region).await;
    let dimensions = [("Cluster", cluster.name.as_str()), ("Role", plan.engine.node.role.as_str())];
    let mut was_accepted = true;
    loop {
        let state = *state_rx.borrow_and_update();
        let load = match state {
            LifecycleState::Serving(health) => engine::fetch_status(health).await.map(|status| status.load),
            LifecycleState::Starting | LifecycleState::Ready | LifecycleState::Draining => None,
        };
        let delay = match load.as_ref().and_then(headroom_percent) {
            Some(value) => {
                let result = aws.put_metric(&PercentMetric { name: METRIC_NAME, dimensions: &dimensions, value }).await;
                match &result {
                    Ok(()) if !was_accepted => log::info!("CloudWatch accepts the scaling metric again"),
                    Err(e) if was_accepted => {
                        log::warn!(err:% = Chain(e); "CloudWatch did not accept the scaling metric")
                    }
                    _ => {}
                }
                was_accepted = result.is_ok();
                PUBLISH_INTERVAL
            }
            // The capacity may become known soon.
            None => UNKNOWN_LOAD_INTERVAL,
        };
        let changed = async {
            if state_rx.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(delay, changed).await;
    }
}

/// `None` while the capacity is unknown.
fn headroom_percent(load: &Load) -> Option<f64> {
    if load.egress_capacity_bps == 0 {
        return None;
    }
    let used = load.egress_bps as f64 / load.egress_capacity_bps as f64;
    // A tenth of a percent is fine enough for scaling.
    Some(((1.0 - used).clamp(0.0, 1.0) * 1_000.0).round() / 10.0)
}

const METRIC_NAME: &str = "EgressHeadroom";
const PUBLISH_INTERVAL: Duration = Duration::from_secs(60);
const UNKNOWN_LOAD_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_the_unused_share_of_the_egress_capacity() {
        let check = |egress_bps, egress_capacity_bps, expected| {
            let load = Load { egress_bps, egress_capacity_bps, ..Load::default() };
            assert_eq!(headroom_percent(&load), expected);
        };
        check(0, 0, None);
        check(0, 1_000, Some(100.0));
        check(250, 1_000, Some(75.0));
        check(2_000, 1_000, Some(0.0));
    }
}
