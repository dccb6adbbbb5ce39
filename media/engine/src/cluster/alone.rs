//! The entry of a node that has its registry to itself: its daemon cannot have that open while it serves, so the engine
//! renews the entry.

use headwater_api::error::Chain;
use headwater_api::node::{Heartbeat, Life};
use headwater_registry::{Registry, Timing};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::load::{Meter, watched};

/// Tells the registry every few seconds how busy this node is. Never ends.
pub async fn stay_registered(registry: impl Registry, life: Life, hub: Hub, meter: Meter, drain: CancellationToken) {
    let mut well = true;
    loop {
        let draining = drain.is_cancelled();
        let beat = Heartbeat { load: meter.load(&hub), draining, ready: !draining, watched: watched(&hub) };
        let renewed = registry.heartbeat(&life, &beat).await;
        if let (Err(e), true) = (&renewed, well) {
            log::warn!(err:% = Chain(e); "the entry of this node could not be renewed");
        }
        well = renewed.is_ok();
        tokio::time::sleep(Timing::default().heartbeat).await;
    }
}
