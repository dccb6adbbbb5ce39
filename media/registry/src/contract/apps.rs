//! Apps are stored as written, across openings of the registry, and no writer overwrites the change
//! of another one.

use headwater_api::documents::{AppDocument, Policy, StreamPolicy};
use headwater_api::secret::Secret;

use crate::{Apps, Registry, RegistryError};

pub(super) async fn check<R: Registry + Clone + 'static>(open: &impl AsyncFn() -> R) {
    app_is_stored(open).await;
    writer_with_an_old_revision_gets_the_current_document(&open().await).await;
    repeated_write_succeeds(&open().await).await;
    one_of_many_concurrent_writers_succeeds(&open().await).await;
    removed_app_does_not_come_back(open).await;
}

/// An app with a value in every field.
fn app() -> AppDocument {
    let mut app = AppDocument {
        publish: Policy::Key,
        play: Policy::Jwt,
        publish_key: Some(Secret::new("publish-key")),
        hash_secret: Some(Secret::new("hash-secret")),
        jwt_key: Some(Secret::new("hs256")),
        jwks_url: Some("https://id.example.com/keys".to_owned()),
        jwks_private: true,
        publish_networks: vec!["10.0.0.0/8".parse().unwrap()],
        allowed_origins: vec!["https://example.com".to_owned()],
        end_at_expiry: true,
        ..AppDocument::open("events")
    };
    let policy = StreamPolicy { publish: Some(Policy::Closed), play: None };
    app.streams = ["cam.1", "cam..2"].map(|id| (id.to_owned(), policy)).into();
    app
}

async fn app_is_stored<R: Registry>(open: &impl AsyncFn() -> R) {
    let registry = open().await;
    let created = registry.put_app(&AppDocument::open("events")).await.unwrap();
    assert_eq!(created, AppDocument { revision: 1, ..AppDocument::open("events") });
    let changed = registry.put_app(&AppDocument { revision: 1, ..app() }).await.unwrap();
    assert_eq!(changed, AppDocument { revision: 2, ..app() });
    drop(registry);
    let registry = open().await;
    assert_eq!(names(&registry).await, ["LiveApp", "events", "live"]);
    assert_eq!(registry.apps().await.unwrap()[1], changed);
}

async fn writer_with_an_old_revision_gets_the_current_document(registry: &impl Apps) {
    let current = registry.apps().await.unwrap()[1].clone();
    for revision in [0, 1, 3] {
        let error = registry.put_app(&AppDocument { revision, ..AppDocument::open("events") }).await.unwrap_err();
        let RegistryError::Changed { name, current: Some(found) } = error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), *found), ("events", current.clone()));
    }
    let removed = AppDocument { revision: 4, ..AppDocument::open("removed") };
    let error = registry.put_app(&removed).await.unwrap_err();
    assert!(matches!(error, RegistryError::Changed { current: None, .. }) && !error.is_retryable(), "{error:?}");
}

async fn repeated_write_succeeds(registry: &impl Apps) {
    let app = AppDocument { revision: 2, play: Policy::Closed, ..app() };
    let written = registry.put_app(&app).await.unwrap();
    assert_eq!(registry.put_app(&app).await.unwrap(), written, "the answer to the first attempt was lost");
    assert_eq!(registry.apps().await.unwrap()[1].revision, 3);
}

async fn one_of_many_concurrent_writers_succeeds<R: Registry + Clone + 'static>(registry: &R) {
    for (name, revision) in [("live", 0), ("live", 1), ("new", 0)] {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8 {
            let (registry, publish_key) = (registry.clone(), Some(Secret::new(format!("{name}{n}"))));
            let app = AppDocument { revision, publish_key, ..AppDocument::open(name) };
            tasks.spawn(async move { registry.put_app(&app).await });
        }
        let outcomes = tasks.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{name}: {outcomes:?}");
    }
    assert!(registry.remove_app("new").await.unwrap());
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
