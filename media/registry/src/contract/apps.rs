//! Apps are stored as written, across openings of the registry.

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::secret::Secret;

use crate::{Apps, Registry};

pub(super) async fn check<R: Registry>(open: &impl AsyncFn() -> R) {
    app_is_stored(open).await;
    removed_app_does_not_come_back(open).await;
}

async fn app_is_stored<R: Registry>(open: &impl AsyncFn() -> R) {
    let app = AppDocument {
        publish: Policy::PublishKey,
        play: Policy::Jwt,
        publish_key: Some(Secret::new("key")),
        jwt_key: Some(Secret::new("hs256")),
        ..AppDocument::open("events")
    };
    let registry = open().await;
    registry.put_app(&AppDocument::open("events")).await.unwrap();
    registry.put_app(&app).await.unwrap();
    drop(registry);
    let registry = open().await;
    assert_eq!(names(&registry).await, ["LiveApp", "events", "live"]);
    assert_eq!(registry.apps().await.unwrap()[1], app);
}

async fn removed_app_does_not_come_back<R: Registry>(open: &impl AsyncFn() -> R) {
    let registry = open().await;
    assert!(registry.remove_app("LiveApp").await.unwrap());
    assert!(!registry.remove_app("LiveApp").await.unwrap());
    drop(registry);
    assert_eq!(names(&open().await).await, ["events", "live"]);
}

pub(super) async fn names(registry: &impl Apps) -> Vec<String> {
    registry.apps().await.unwrap().into_iter().map(|app| app.name).collect()
}
