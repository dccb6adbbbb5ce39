//! Enters this node in the registry before its engine starts, and removes it when it has ended.
//!
//! One process at a time may have the embedded registry open, and while the node serves that is the engine. So the
//! daemon opens it for a moment before the first start and after the last end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::config::RegistryKind;
use headwater_api::node::NodeDocument;
use headwater_registry::{Embedded, Registry as _, RegistryError};

use crate::plan::Plan;

/// Enters the node, in place of an earlier life of it.
pub(crate) async fn enter(plan: &Plan) -> Result<(), RegistryError> {
    let registry = open(plan).await?;
    let mut node = NodeDocument {
        id: plan.engine.node.id.clone(),
        role: plan.engine.node.role,
        addresses: plan.addresses.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        booted_at_ms: now_ms(),
    };
    match registry.put_node(&node).await {
        // Whoever holds the file is alone with it: no later life can exist, so the clock has been set back since.
        Err(RegistryError::Superseded { registered_ms, .. }) => {
            log::warn!(node = node.id.as_str(); "the clock was later at the last start than it is now");
            node.booted_at_ms = registered_ms.saturating_add(1);
            registry.put_node(&node).await
        }
        result => result,
    }
}

/// Removes the node. That it was not there is fine.
pub(crate) async fn leave(plan: &Plan) -> Result<(), RegistryError> {
    open(plan).await?.remove_node(&plan.engine.node.id).await.map(drop)
}

/// Opens the registry; for a moment it may still be held by an engine whose daemon was killed.
async fn open(plan: &Plan) -> Result<Embedded, RegistryError> {
    let RegistryKind::Embedded = plan.engine.registry.kind;
    let patient_until = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Embedded::open(&plan.engine.node.data_dir) {
            Err(RegistryError::Locked { .. }) if tokio::time::Instant::now() < patient_until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            result => return result,
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A killed engine lets go of its files within milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::settings::Settings;

    fn plan_in(name: &str) -> Plan {
        let folder = std::env::temp_dir().join(format!("headwaterd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::parse(&format!("node.id = 'a'\nnode.data_dir = '{}'", folder.display())).unwrap();
        crate::plan::plan(&Facts::default(), &settings).unwrap()
    }

    async fn ids(plan: &Plan) -> Vec<String> {
        open(plan).await.unwrap().nodes().await.unwrap().into_iter().map(|node| node.id).collect()
    }

    #[tokio::test]
    async fn a_node_is_entered_once_and_removed() {
        let plan = plan_in("enter");
        enter(&plan).await.unwrap();
        enter(&plan).await.unwrap();
        assert_eq!(ids(&plan).await, ["a"]);
        leave(&plan).await.unwrap();
        leave(&plan).await.unwrap();
        assert!(ids(&plan).await.is_empty());
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_does_not_keep_a_node_out() {
        let plan = plan_in("clock");
        let later = NodeDocument {
            id: "a".to_owned(),
            role: plan.engine.node.role,
            addresses: Vec::new(),
            version: String::new(),
            booted_at_ms: now_ms() + 86_400_000,
        };
        open(&plan).await.unwrap().put_node(&later).await.unwrap();
        enter(&plan).await.unwrap();
        let nodes = open(&plan).await.unwrap().nodes().await.unwrap();
        assert_eq!(nodes[0].version, env!("CARGO_PKG_VERSION"));
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_stays_locked_is_an_error() {
        let plan = plan_in("locked");
        let _held = open(&plan).await.unwrap();
        assert!(matches!(enter(&plan).await, Err(RegistryError::Locked { .. })));
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }
}
