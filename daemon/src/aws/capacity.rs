//! Publishes how much this instance can send, as EC2 guarantees it for the instance type. Runs in
//! parallel with everything else: no start waits for it.

use std::time::Duration;

use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::aws::client::Aws;
use crate::boot::facts::Instance;
use crate::boot::plan::Plan;

/// Sends the capacity once it is known, unless the configuration file sets it. Never returns.
pub(crate) async fn publish_capacity(plan: &Plan, instance: Option<&Instance>, capacity_tx: watch::Sender<u64>) {
    if let (Some(instance), None) = (instance, plan.engine.limits.egress_mbps) {
        let aws = Aws::in_region(&instance.region).await;
        for attempt in 0..MAX_ATTEMPTS {
            match aws.fetch_egress_bps(&instance.instance_type).await {
                Ok(bps) => {
                    capacity_tx.send_replace(bps);
                    log::info!(bytes = bps / 8, instance_type = instance.instance_type.as_str(); "egress capacity known");
                    break;
                }
                Err(e) if attempt == 0 => log::warn!(err:% = Chain(&e); "egress capacity is unknown"),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
    std::future::pending().await
}

/// A missing permission may be granted later, but hardly after an hour.
const MAX_ATTEMPTS: u32 = 60;
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
