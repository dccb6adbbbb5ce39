//! Heartbeat of a standalone node. Its embedded registry can be open in one process only, so the
//! engine renews the node's entry instead of the daemon.

use std::pin::Pin;

use headwater_api::error::Chain;
use headwater_api::node::{Heartbeat, Life};
use headwater_registry::{Registry, Timing};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::node::load::{Meter, watched};

/// Resolves to true if this node is ready.
pub type Readying = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Renews the node's entry at every heartbeat interval, with its load, its drain state and the result
/// of `is_ready`. Never ends; drop the future to stop it.
pub async fn stay_registered(
    registry: impl Registry,
    life: Life,
    hub: Hub,
    meter: Meter,
    drain: CancellationToken,
    is_ready: impl Fn() -> Readying,
) {
    let mut well = true;
    loop {
        let (draining, ready) = (drain.is_cancelled(), is_ready().await);
        let beat = Heartbeat { load: meter.load(&hub), draining, ready, watched: watched(&hub) };
        let renewed = registry.heartbeat(&life, &beat).await;
        if let (Err(e), true) = (&renewed, well) {
            log::warn!(err:% = Chain(e); "the entry of this node could not be renewed");
        }
        well = renewed.is_ok();
        tokio::time::sleep(Timing::default().heartbeat).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use headwater_registry::Embedded;

    use super::*;
    use crate::hub::Limits;

    #[tokio::test(start_paused = true)]
    async fn entry_of_a_standalone_node_reports_readiness_and_drain() {
        let folder = std::env::temp_dir().join(format!("headwater-alone-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let registry = Embedded::open_with(&folder, Timing::default()).unwrap();
        let node =
            serde_json::from_str(r#"{"id": "a", "role": "standalone", "addresses": [], "version": ""}"#).unwrap();
        let life = registry.register(&node, None).await.unwrap();
        let (ready, drain) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let says = Arc::clone(&ready);
        let is_ready = move || -> Readying { Box::pin(std::future::ready(says.load(Ordering::Relaxed))) };
        let (hub, meter) = (Hub::new(Limits::default()), Meter::new(&headwater_api::Config::default()));
        let staying = tokio::spawn(stay_registered(registry.clone(), life, hub, meter, drain.clone(), is_ready));
        let shown = async || {
            tokio::time::sleep(2 * Timing::default().heartbeat).await;
            let beat = registry.node("a").await.unwrap().unwrap().heartbeat;
            (beat.ready, beat.draining)
        };
        assert_eq!(shown().await, (false, false));
        ready.store(true, Ordering::Relaxed);
        assert_eq!(shown().await, (true, false));
        ready.store(false, Ordering::Relaxed);
        drain.cancel();
        assert_eq!(shown().await, (false, true));
        staying.abort();
        drop(registry);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
