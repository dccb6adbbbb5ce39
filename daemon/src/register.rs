//! Enters this node in the registry before its engine starts, and removes it when it has ended.
//!
//! One process at a time may have the embedded registry open, and while the node serves that is the engine. So the
//! daemon opens it for a moment before the first start and after the last end.

use std::time::Duration;

use headwater_api::node::{Life, NodeDocument};
use headwater_registry::{Registry as _, RegistryError, Store};

use crate::plan::Plan;

/// Enters the node, in place of an earlier life of it.
pub(crate) async fn enter(plan: &Plan) -> Result<Life, RegistryError> {
    let node = NodeDocument {
        id: plan.engine.node.id.clone(),
        role: plan.engine.node.role,
        addresses: plan.addresses.clone(),
        relay: Vec::new(),
        url: None,
        group: String::new(),
        zone: String::new(),
        instance_type: String::new(),
        image: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    open(plan).await?.register(&node, None).await
}

/// Removes the node. That it was not there, or that a later life of it is, is fine.
pub(crate) async fn leave(plan: &Plan, life: &Life) -> Result<(), RegistryError> {
    open(plan).await?.leave(life).await.map(drop)
}

/// Opens the registry; for a moment it may still be held by an engine whose daemon was killed.
async fn open(plan: &Plan) -> Result<Store, RegistryError> {
    let patient_until = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Store::open(&plan.engine.registry, &plan.engine.node.data_dir).await {
            Err(RegistryError::Locked { .. }) if tokio::time::Instant::now() < patient_until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            result => return result,
        }
    }
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
        open(plan).await.unwrap().nodes().await.unwrap().into_iter().map(|record| record.node.id).collect()
    }

    #[tokio::test]
    async fn a_node_is_entered_once_and_removed_by_its_own_life_alone() {
        let plan = plan_in("enter");
        let first = enter(&plan).await.unwrap();
        let second = enter(&plan).await.unwrap();
        assert!(second.epoch > first.epoch);
        leave(&plan, &first).await.unwrap();
        assert_eq!(ids(&plan).await, ["a"]);
        leave(&plan, &second).await.unwrap();
        leave(&plan, &second).await.unwrap();
        assert!(ids(&plan).await.is_empty());
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
