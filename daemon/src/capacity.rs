//! What this instance can send, as EC2 promises it for its type. Asked for beside everything else: no start waits for it.

use std::time::Duration;

use headwater_api::error::Chain;
use tokio::sync::watch;

use crate::aws::Aws;
use crate::facts::Instance;
use crate::plan::Plan;

/// Tells it once it is known, unless the file says it already. Never ends.
pub(crate) async fn until_known(plan: &Plan, instance: Option<&Instance>, capacity_bps: watch::Sender<u64>) {
    if let (Some(instance), None) = (instance, plan.engine.limits.egress_mbps) {
        let aws = Aws::in_region(&instance.region).await;
        for attempt in 0..ATTEMPTS {
            match aws.fetch_egress_bps(&instance.instance_type).await {
                Ok(bps) => {
                    capacity_bps.send_replace(bps);
                    log::info!(bytes = bps / 8, instance_type = instance.instance_type.as_str(); "egress capacity known");
                    break;
                }
                Err(e) if attempt == 0 => log::warn!(err:% = Chain(&e); "egress capacity is not known"),
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    std::future::pending().await
}

/// A permission that is missing now may be there later, but hardly after an hour.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(60);
