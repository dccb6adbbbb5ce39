//! Heartbeat of a standalone node. Its embedded registry can be open in one process only, so the
//! engine renews the node's entry instead of the daemon.

use std::pin::Pin;

use headwater_api::documents::{Heartbeat, NodeIncarnation};
use headwater_api::error::Chain;
use headwater_registry::{Registry, Timing};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::node::load::{LoadMeter, stream_viewers};

/// Resolves to true if this node is ready.
pub type ReadyFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Renews the node's entry at every heartbeat interval, with its load, its drain state and the
/// result of `is_ready`. Never ends; drop the future to stop it.
pub async fn run_standalone_heartbeat(
    registry: impl Registry,
    incarnation: NodeIncarnation,
    hub: Hub,
    meter: LoadMeter,
    drain: CancellationToken,
    is_ready: impl Fn() -> ReadyFuture,
) {
    let mut healthy = true;
    loop {
        let (draining, ready) = (drain.is_cancelled(), is_ready().await);
        let heartbeat = Heartbeat { load: meter.load(&hub), draining, ready, watched: stream_viewers(&hub) };
        let renewed = registry.heartbeat(&incarnation, &heartbeat).await;
        if let (Err(e), true) = (&renewed, healthy) {
            log::warn!(err:% = Chain(e); "the entry of this node could not be renewed");
        }
        healthy = renewed.is_ok();
        tokio::time::sleep(Timing::default().heartbeat_interval).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use headwater_registry::{Embedded, Nodes as _};

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
        let is_ready_flag = Arc::clone(&ready);
        let is_ready = move || -> ReadyFuture { Box::pin(std::future::ready(is_ready_flag.load(Ordering::Relaxed))) };
        let (hub, meter) = (Hub::new(Limits::default()), LoadMeter::new(&headwater_api::Config::default()));
        let heartbeat_task =
            tokio::spawn(run_standalone_heartbeat(registry.clone(), life, hub, meter, drain.clone(), is_ready));
        let reported = async || {
            tokio::time::sleep(2 * Timing::default().heartbeat_interval).await;
            let heartbeat = registry.node("a").await.unwrap().unwrap().heartbeat;
            (heartbeat.ready, heartbeat.draining)
        };
        assert_eq!(reported().await, (false, false));
        ready.store(true, Ordering::Relaxed);
        assert_eq!(reported().await, (true, false));
        ready.store(false, Ordering::Relaxed);
        drain.cancel();
        assert_eq!(reported().await, (false, true));
        heartbeat_task.abort();
        drop(registry);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
