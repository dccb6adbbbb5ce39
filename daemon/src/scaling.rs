//! The scaling metric: how much of what this node can send is still free, in percent, once a minute, for its cluster and role.
//!
//! A policy of Auto Scaling that tracks its average adds nodes before they are full.

use std::time::Duration;

use headwater_api::error::Chain;
use headwater_api::node::Load;
use tokio::sync::watch;

use crate::asg::State;
use crate::aws::{Aws, Percent};
use crate::engine;
use crate::plan::Plan;

/// Tells CloudWatch while the node serves. Never ends; a node without a cluster tells nobody.
pub(crate) async fn publish(plan: &Plan, mut states: watch::Receiver<State>) {
    let Some(cluster) = &plan.cluster else { return std::future::pending().await };
    let aws = Aws::in_region(&cluster.region).await;
    let dimensions = [("Cluster", cluster.name.as_str()), ("Role", plan.engine.node.role.as_str())];
    let mut well = true;
    loop {
        let state = *states.borrow_and_update();
        let load = match state {
            State::Serving(health) => engine::fetch_status(health).await.map(|status| status.load),
            State::Starting | State::Ready | State::Draining => None,
        };
        let pause = match load.as_ref().and_then(headroom_percent) {
            Some(value) => {
                let told = aws.put_metric(&Percent { name: NAME, dimensions: &dimensions, value }).await;
                match &told {
                    Ok(()) if !well => log::info!("CloudWatch takes the scaling metric again"),
                    Err(e) if well => log::warn!(err:% = Chain(e); "CloudWatch did not take the scaling metric"),
                    _ => {}
                }
                well = told.is_ok();
                EVERY
            }
            // What the machine can send may become known soon.
            None => SOON,
        };
        let changed = async {
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(pause, changed).await;
    }
}

/// `None` where nobody knows what the machine can send.
fn headroom_percent(load: &Load) -> Option<f64> {
    if load.egress_capacity_bps == 0 {
        return None;
    }
    let used = load.egress_bps as f64 / load.egress_capacity_bps as f64;
    // A tenth of a percent is finer than anybody scales by.
    Some(((1.0 - used).clamp(0.0, 1.0) * 1_000.0).round() / 10.0)
}

const NAME: &str = "EgressHeadroom";
const EVERY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_what_is_left_of_what_can_be_sent() {
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
