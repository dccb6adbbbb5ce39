//! Apps, recordings, users and tokens: they are kept as written, and what must be unique is.

use std::sync::Arc;

use headwater_api::app::{AppDocument, Policy};
use headwater_api::recording::{RecordingDocument, RecordingQuery, RecordingState};
use headwater_api::secret::Secret;
use headwater_api::token::{Grant, TokenDocument};
use headwater_api::user::{Rights, UserDocument};

use super::name;
use crate::{Registry, RegistryError};

pub(super) async fn check<R: Registry + Clone + 'static>(open: &impl AsyncFn() -> R) {
    a_new_registry_has_the_first_apps_and_nothing_else(&open().await).await;
    an_app_is_written_and_stays(open).await;
    an_app_that_was_removed_stays_away(open).await;
    recordings_are_listed_newest_first_by_app_and_by_stream(&open().await).await;
    a_user_is_created_once_and_can_be_changed(&open().await).await;
    of_many_who_create_the_same_user_one_does(&open().await).await;
    a_token_is_used_up_once_by_one_of_many(&open().await).await;
    a_token_opens_only_what_it_is_for_and_only_in_time(&open().await).await;
    a_probe_tells_the_time(&open().await).await;
}

async fn a_new_registry_has_the_first_apps_and_nothing_else(registry: &impl Registry) {
    assert_eq!(apps(registry).await, ["LiveApp", "live"]);
    assert_eq!(registry.nodes().await.unwrap(), []);
    assert_eq!(registry.streams().await.unwrap(), []);
    assert_eq!(registry.users().await.unwrap(), []);
}

async fn an_app_is_written_and_stays<R: Registry>(open: &impl AsyncFn() -> R) {
    let app = AppDocument {
        publish: Policy::StreamKey,
        play: Policy::Jwt,
        stream_key: Some(Secret::new("key")),
        jwt_key: Some(Secret::new("hs256")),
        ..AppDocument::open("events")
    };
    let registry = open().await;
    registry.put_app(&AppDocument::open("events")).await.unwrap();
    registry.put_app(&app).await.unwrap();
    drop(registry);
    let registry = open().await;
    assert_eq!(apps(&registry).await, ["LiveApp", "events", "live"]);
    assert_eq!(registry.apps().await.unwrap()[1], app);
}

async fn an_app_that_was_removed_stays_away<R: Registry>(open: &impl AsyncFn() -> R) {
    let registry = open().await;
    assert!(registry.remove_app("LiveApp").await.unwrap());
    assert!(!registry.remove_app("LiveApp").await.unwrap());
    drop(registry);
    assert_eq!(apps(&open().await).await, ["events", "live"]);
}

async fn recordings_are_listed_newest_first_by_app_and_by_stream(registry: &impl Registry) {
    for (id, stream, at) in [("1", "live/a", 1), ("2", "live/b", 2), ("3", "other/a", 3), ("4", "live/a", 4)] {
        registry.put_recording(&recording(id, stream, at)).await.unwrap();
    }
    let uploaded = RecordingDocument { state: RecordingState::Uploaded, ..recording("2", "live/b", 2) };
    registry.put_recording(&uploaded).await.unwrap();
    assert_eq!(registry.recording("2").await.unwrap(), Some(uploaded));
    assert_eq!(registry.recording("9").await.unwrap(), None);
    let all = RecordingQuery { limit: 100, ..RecordingQuery::default() };
    let of_app = RecordingQuery { app: Some("live".to_owned()), ..all.clone() };
    let of_stream = RecordingQuery { stream: Some(name("live/a")), ..all.clone() };
    let second = RecordingQuery { offset: 1, limit: 2, ..RecordingQuery::default() };
    for (query, expected) in [(all, "4321"), (of_app, "421"), (of_stream, "41"), (second, "32")] {
        let ids: String = registry.recordings(&query).await.unwrap().into_iter().map(|r| r.id).collect();
        assert_eq!(ids, expected, "{query:?}");
    }
    assert!(registry.remove_recording("4").await.unwrap());
    assert!(!registry.remove_recording("4").await.unwrap());
}

async fn a_user_is_created_once_and_can_be_changed(registry: &impl Registry) {
    registry.create_user(&user("admin", "one")).await.unwrap();
    let error = registry.create_user(&user("admin", "two")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Exists { what: "user", .. }) && !error.is_retryable(), "{error:?}");
    assert_eq!(registry.user("admin").await.unwrap(), Some(user("admin", "one")));
    registry.put_user(&user("admin", "three")).await.unwrap();
    registry.put_user(&user("Anna", "four")).await.unwrap();
    assert_eq!(registry.users().await.unwrap(), [user("Anna", "four"), user("admin", "three")]);
    assert!(registry.remove_user("Anna").await.unwrap());
    assert!(!registry.remove_user("Anna").await.unwrap());
    assert_eq!(registry.user("Anna").await.unwrap(), None);
}

async fn of_many_who_create_the_same_user_one_does<R: Registry + Clone + 'static>(registry: &R) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move { registry.create_user(&user("first", &n.to_string())).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    assert!(registry.remove_user("first").await.unwrap());
}

async fn a_token_is_used_up_once_by_one_of_many<R: Registry + Clone + 'static>(registry: &R) {
    let now_ms = registry.probe().await.unwrap();
    let token = Arc::new(token("race", now_ms + 600_000));
    registry.create_token(&token).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (registry, token) = (registry.clone(), token.clone());
        tasks.spawn(async move { registry.consume_token(&token.digest, &token.stream, token.grants).await.unwrap() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|used| *used).count(), 1);
    let error = registry.create_token(&token).await.unwrap_err();
    assert!(matches!(error, RegistryError::Exists { what: "token", .. }), "a used token came back: {error:?}");
}

async fn a_token_opens_only_what_it_is_for_and_only_in_time(registry: &impl Registry) {
    let now_ms = registry.probe().await.unwrap();
    registry.create_token(&token("good", now_ms + 600_000)).await.unwrap();
    registry.create_token(&token("late", now_ms)).await.unwrap();
    for (digest, stream, grants) in [
        ("none", "live/a", Grant::Play),
        ("good", "live/b", Grant::Play),
        ("good", "live/a", Grant::Publish),
        ("late", "live/a", Grant::Play),
    ] {
        assert!(!registry.consume_token(digest, &name(stream), grants).await.unwrap(), "{digest} {stream} {grants:?}");
    }
    assert!(registry.consume_token("good", &name("live/a"), Grant::Play).await.unwrap());
}

async fn a_probe_tells_the_time(registry: &impl Registry) {
    let before = registry.probe().await.unwrap();
    assert!(before > 1_700_000_000_000);
    super::until("a later time", async || (registry.probe().await.unwrap() > before).then_some(())).await;
}

async fn apps(registry: &impl Registry) -> Vec<String> {
    registry.apps().await.unwrap().into_iter().map(|a| a.name).collect()
}

fn recording(id: &str, stream: &str, started_at_ms: u64) -> RecordingDocument {
    RecordingDocument {
        id: id.to_owned(),
        stream: name(stream),
        node: "a".to_owned(),
        started_at_ms,
        duration_ms: 1_000,
        bytes: 5_000_000_000,
        file: Some(format!("{id}.mp4")),
        object: None,
        state: RecordingState::Local,
    }
}

fn user(name: &str, hash: &str) -> UserDocument {
    UserDocument {
        name: name.to_owned(),
        password_hash: Secret::new(hash),
        rights: Rights::Administer,
        created_at_ms: 1_700_000_000_000,
    }
}

fn token(digest: &str, expires_at_ms: u64) -> TokenDocument {
    TokenDocument { digest: digest.to_owned(), stream: name("live/a"), grants: Grant::Play, expires_at_ms }
}
