//! A one-time token is consumed once, and a revoked token is listed as revoked until it expires.

use std::sync::Arc;

use headwater_api::documents::{Grant, KEPT_AFTER_EXPIRY_MS, Revocation, TokenDocument, TokenKind};

use super::{TOKEN_VALIDITY_MS, name, until};
use crate::{Registry, RegistryError, TokenQuery, TokenRefusal, TokenUse};

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    one_of_many_concurrent_uses_of_a_token_succeeds(registry).await;
    refused_token_remains_as_it_was(registry).await;
    token_of_an_app_is_valid_for_all_its_streams(registry).await;
    tokens_are_listed_by_page_with_the_latest_first(registry).await;
    revoked_token_is_refused_and_listed(registry).await;
    all_tokens_of_a_stream_are_revoked_together(registry).await;
    expired_token_is_not_listed_but_can_be_revoked(registry).await;
}

async fn one_of_many_concurrent_uses_of_a_token_succeeds<R: Registry + Clone + 'static>(registry: &R) {
    let token = Arc::new(token(registry, "race").await);
    registry.create_token(&token).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move { registry.consume_token("race", &name("live/a"), Grant::Play).await.unwrap() });
    }
    let (granted, refused): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(|outcome| matches!(outcome, TokenUse::Granted(_)));
    assert!(refused.iter().all(|outcome| *outcome == TokenUse::Refused(TokenRefusal::Used)), "{refused:?}");
    let [TokenUse::Granted(used)] = &granted[..] else { panic!("{granted:?}") };
    assert!(used.used_at_ms.is_some_and(|used_ms| token.created_at_ms <= used_ms), "{used:?}");
    assert_eq!(*used, TokenDocument { used_at_ms: used.used_at_ms, ..(*token).clone() });
    assert_eq!(registry.token("race").await.unwrap().as_ref(), Some(used));
    let error = registry.create_token(&token).await.unwrap_err();
    assert!(matches!(error, RegistryError::Exists { what: "token", .. }), "a used token was created again: {error:?}");
}

async fn refused_token_remains_as_it_was(registry: &impl Registry) {
    let valid = token(registry, "valid").await;
    let later = valid.created_at_ms + TOKEN_VALIDITY_MS / 2;
    let early = TokenDocument { digest: "early".to_owned(), not_before_ms: later, ..valid.clone() };
    let jwt = TokenDocument { digest: "jwt".to_owned(), kind: TokenKind::Jwt, ..valid.clone() };
    let tokens = [valid, early, jwt];
    for token in &tokens {
        registry.create_token(token).await.unwrap();
    }
    for (digest, stream, grants, expected) in [
        ("unknown", "live/a", Grant::Play, TokenRefusal::Unknown),
        ("jwt", "live/a", Grant::Play, TokenRefusal::Unknown),
        ("valid", "LiveApp/a", Grant::Play, TokenRefusal::OtherApp),
        ("valid", "live/b", Grant::Play, TokenRefusal::OtherStream),
        ("valid", "live/a", Grant::Publish, TokenRefusal::OtherAction),
        ("early", "live/a", Grant::Play, TokenRefusal::NotYetValid),
    ] {
        let outcome = registry.consume_token(digest, &name(stream), grants).await.unwrap();
        assert_eq!(outcome, TokenUse::Refused(expected), "{digest} {stream} {grants:?}");
    }
    let checked = registry.check_token("valid", &name("live/a"), Grant::Play).await.unwrap();
    assert!(matches!(checked, TokenUse::Granted(_)), "{checked:?}");
    let checked = registry.check_token("valid", &name("live/b"), Grant::Play).await.unwrap();
    assert_eq!(checked, TokenUse::Refused(TokenRefusal::OtherStream));
    for token in tokens {
        assert_eq!(registry.token(&token.digest).await.unwrap(), Some(token));
    }
    let outcome = registry.consume_token("valid", &name("live/a"), Grant::Play).await.unwrap();
    assert!(matches!(outcome, TokenUse::Granted(_)), "{outcome:?}");
}

async fn token_of_an_app_is_valid_for_all_its_streams(registry: &impl Registry) {
    let token = TokenDocument { stream: None, ..token(registry, "app").await };
    registry.create_token(&token).await.unwrap();
    let other = registry.consume_token("app", &name("LiveApp/x"), Grant::Play).await.unwrap();
    assert_eq!(other, TokenUse::Refused(TokenRefusal::OtherApp));
    let outcome = registry.consume_token("app", &name("live/x"), Grant::Play).await.unwrap();
    assert!(matches!(outcome, TokenUse::Granted(_)), "{outcome:?}");
}

async fn tokens_are_listed_by_page_with_the_latest_first(registry: &impl Registry) {
    let token = TokenDocument { app: "listed".to_owned(), ..token(registry, "").await };
    for (n, stream) in [Some("a"), Some("b"), None, Some("a")].into_iter().enumerate() {
        let (digest, created_at_ms) = (format!("listed{n}"), token.created_at_ms + n as u64);
        let stream = stream.map(str::to_owned);
        registry.create_token(&TokenDocument { digest, created_at_ms, stream, ..token.clone() }).await.unwrap();
    }
    let check = async |stream, offset, limit, expected: &[&str]| {
        let query = TokenQuery { app: "listed", stream, offset, limit };
        let digests: Vec<_> = registry.tokens(query).await.unwrap().into_iter().map(|token| token.digest).collect();
        assert_eq!(digests, expected, "{query:?}");
    };
    check(None, 0, u64::MAX, &["listed3", "listed2", "listed1", "listed0"]).await;
    check(None, 1, 2, &["listed2", "listed1"]).await;
    check(None, 4, 2, &[]).await;
    check(None, 0, 0, &[]).await;
    check(Some("a"), 0, 10, &["listed3", "listed0"]).await;
    check(Some("a"), 1, 10, &["listed0"]).await;
    check(Some("c"), 0, 10, &[]).await;
}

async fn revoked_token_is_refused_and_listed(registry: &impl Registry) {
    let token = token(registry, "revoked").await;
    registry.create_token(&token).await.unwrap();
    assert!(!registry.revoke_token("unknown").await.unwrap());
    assert!(registry.revoke_token("revoked").await.unwrap());
    let revoked = registry.token("revoked").await.unwrap().unwrap();
    let revoked_ms = revoked.revoked_at_ms.unwrap();
    assert!(token.created_at_ms <= revoked_ms);
    assert!(registry.revoke_token("revoked").await.unwrap(), "revoked again");
    assert_eq!(registry.token("revoked").await.unwrap(), Some(revoked));
    let outcome = registry.consume_token("revoked", &name("live/a"), Grant::Play).await.unwrap();
    assert_eq!(outcome, TokenUse::Refused(TokenRefusal::Revoked));
    let expected = Revocation { digest: "revoked".to_owned(), kept_until_ms: token.kept_until_ms() };
    for since_ms in [0, revoked_ms] {
        let revocations = registry.revocations(since_ms).await.unwrap();
        assert_eq!(revocations.tokens, std::slice::from_ref(&expected), "since {since_ms}");
        assert!(revoked_ms <= revocations.at_ms, "{revocations:?}");
    }
    assert_eq!(registry.revocations(revoked_ms + 1).await.unwrap().tokens, []);
}

async fn all_tokens_of_a_stream_are_revoked_together(registry: &impl Registry) {
    let token = TokenDocument { stream: Some("many".to_owned()), ..token(registry, "").await };
    for (digest, app, stream) in [
        ("many1", "live", Some("many")),
        ("many2", "live", Some("many")),
        ("other-app", "LiveApp", Some("many")),
        ("other-stream", "live", Some("few")),
        ("all-streams", "live", None),
    ] {
        let (digest, app, stream) = (digest.to_owned(), app.to_owned(), stream.map(str::to_owned));
        registry.create_token(&TokenDocument { digest, app, stream, ..token.clone() }).await.unwrap();
    }
    assert_eq!(registry.revoke_tokens("live", Some("many")).await.unwrap(), 2);
    assert_eq!(registry.revoke_tokens("live", Some("many")).await.unwrap(), 0);
    let revocations = registry.revocations(0).await.unwrap().tokens;
    assert_eq!(revocations.iter().map(|token| &token.digest[..]).collect::<Vec<_>>(), ["many1", "many2", "revoked"]);
    // Those of an app, whatever their stream.
    assert_eq!(registry.revoke_tokens("LiveApp", None).await.unwrap(), 1);
    assert!(registry.token("other-app").await.unwrap().unwrap().revoked_at_ms.is_some());
}

/// Sessions that it has begun may still run.
async fn expired_token_is_not_listed_but_can_be_revoked(registry: &impl Registry) {
    let token = token(registry, "short").await;
    let expires_at_ms = token.created_at_ms + 1_000;
    registry.create_token(&TokenDocument { app: "short".to_owned(), expires_at_ms, ..token }).await.unwrap();
    until("the token has expired", async || {
        let query = TokenQuery { app: "short", stream: None, offset: 0, limit: 1 };
        registry.tokens(query).await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(registry.token("short").await.unwrap().is_some(), "it is still known");
    assert!(registry.revoke_token("short").await.unwrap());
    let revocations = registry.revocations(0).await.unwrap().tokens;
    let kept_until_ms = expires_at_ms + KEPT_AFTER_EXPIRY_MS;
    assert!(revocations.contains(&Revocation { digest: "short".to_owned(), kept_until_ms }), "{revocations:?}");
    let outcome = registry.consume_token("short", &name("short/a"), Grant::Play).await.unwrap();
    assert!(matches!(outcome, TokenUse::Refused(_)), "{outcome:?}");
}

async fn token(registry: &impl Registry, digest: &str) -> TokenDocument {
    super::token(digest, registry.probe().await.unwrap())
}
