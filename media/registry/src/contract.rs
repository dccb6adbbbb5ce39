//! What every store behind [`Registry`] must do, as one suite that each store's tests call.
//!
//! Must not know a store: it is handed a function that opens the same one again.

use headwater_api::config::Role;
use headwater_api::node::{AppDocument, NodeDocument};

use crate::{Registry, RegistryError};

/// Runs the whole suite. `open` gives the same, at first empty, store each time; the one before is dropped first.
pub(crate) async fn check<R: Registry>(open: impl Fn() -> R) {
    a_new_registry_has_the_first_apps_and_no_node(&open()).await;
    an_app_is_written_once_and_stays(&open).await;
    a_node_replaces_its_earlier_life(&open()).await;
    an_earlier_life_cannot_overwrite_a_later_one(&open()).await;
    a_removed_node_is_gone(&open).await;
}

async fn a_new_registry_has_the_first_apps_and_no_node(registry: &impl Registry) {
    assert_eq!(names(registry).await, ["LiveApp", "live"]);
    assert_eq!(registry.nodes().await.unwrap(), []);
}

async fn an_app_is_written_once_and_stays<R: Registry>(open: &impl Fn() -> R) {
    let registry = open();
    for _ in 0..2 {
        registry.put_app(&AppDocument { name: "events".to_owned() }).await.unwrap();
    }
    drop(registry);
    assert_eq!(names(&open()).await, ["LiveApp", "events", "live"]);
}

async fn a_node_replaces_its_earlier_life(registry: &impl Registry) {
    registry.put_node(&node("a", 1_000)).await.unwrap();
    registry.put_node(&node("b", 1_000)).await.unwrap();
    registry.put_node(&node("a", 2_000)).await.unwrap();
    registry.put_node(&node("a", 2_000)).await.unwrap();
    assert_eq!(registry.nodes().await.unwrap(), [node("a", 2_000), node("b", 1_000)]);
}

async fn an_earlier_life_cannot_overwrite_a_later_one(registry: &impl Registry) {
    let error = registry.put_node(&node("a", 1_999)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Superseded { this_ms: 1_999, registered_ms: 2_000, .. }), "{error:?}");
    assert_eq!(registry.nodes().await.unwrap()[0], node("a", 2_000));
}

async fn a_removed_node_is_gone<R: Registry>(open: &impl Fn() -> R) {
    let registry = open();
    assert!(registry.remove_node("a").await.unwrap());
    assert!(!registry.remove_node("a").await.unwrap());
    drop(registry);
    assert_eq!(open().nodes().await.unwrap(), [node("b", 1_000)]);
}

async fn names(registry: &impl Registry) -> Vec<String> {
    registry.apps().await.unwrap().into_iter().map(|a| a.name).collect()
}

fn node(id: &str, booted_at_ms: u64) -> NodeDocument {
    NodeDocument {
        id: id.to_owned(),
        role: Role::Standalone,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        version: "1.2.3".to_owned(),
        booted_at_ms,
    }
}
