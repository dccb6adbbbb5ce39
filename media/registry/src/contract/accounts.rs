//! Users are unique by name, and their ended sessions are kept.

use headwater_api::documents::{MAX_ENDED_SESSIONS, Rights, UserDocument};
use headwater_api::secret::Secret;

use crate::{Accounts, Registry, RegistryError};

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    user_is_created_once_and_can_be_changed(registry).await;
    ended_sessions_are_added_to_a_user_and_bounded(registry).await;
    one_of_many_concurrent_creations_of_a_user_succeeds(registry).await;
}

async fn user_is_created_once_and_can_be_changed(registry: &impl Accounts) {
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

async fn ended_sessions_are_added_to_a_user_and_bounded(registry: &impl Accounts) {
    assert!(!registry.end_session("Eva", "first").await.unwrap());
    assert_eq!(registry.user("Eva").await.unwrap(), None);
    let full = (0..MAX_ENDED_SESSIONS).map(|n| n.to_string()).collect();
    registry.put_user(&UserDocument { ended_sessions: full, ..user("Eva", "five") }).await.unwrap();
    assert!(registry.end_session("Eva", "last").await.unwrap());
    let ended = registry.user("Eva").await.unwrap().unwrap().ended_sessions;
    assert_eq!((ended.len(), ended[0].as_str()), (MAX_ENDED_SESSIONS, "1"));
    assert_eq!(ended.last().map(String::as_str), Some("last"));
    registry.put_user(&user("Eva", "six")).await.unwrap();
    assert!(registry.end_session("Eva", "only").await.unwrap());
    let expected = UserDocument { ended_sessions: vec!["only".to_owned()], ..user("Eva", "six") };
    assert_eq!(registry.user("Eva").await.unwrap(), Some(expected));
    assert!(registry.remove_user("Eva").await.unwrap());
}

async fn one_of_many_concurrent_creations_of_a_user_succeeds<R: Registry + Clone + 'static>(registry: &R) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move { registry.create_user(&user("first", &n.to_string())).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
    assert!(registry.remove_user("first").await.unwrap());
}

fn user(name: &str, hash: &str) -> UserDocument {
    UserDocument {
        name: name.to_owned(),
        password_hash: Secret::new(hash),
        rights: Rights::Administer,
        created_at_ms: 1_700_000_000_000,
        ended_sessions: Vec::new(),
    }
}
