//! Tests of the decision, with policies that the test sets, and of what ends a session.

use std::net::Ipv4Addr;
use std::path::Path;

use headwater_api::config::{self, RegistryKind};
use headwater_api::documents::{AppDocument, StreamPolicy, TokenKind};
use headwater_api::secret::Secret;
use headwater_registry::Embedded;

use super::*;
use crate::access::test_tokens::{KEY, hs256, play_token};

const FAR: u64 = 4_000_000_000;

fn app() -> AppDocument {
    AppDocument {
        publish_key: Some(Secret::new("the-publish-key")),
        hash_secret: Some(Secret::new("hash-secret")),
        jwt_key: Some(Secret::new(KEY)),
        ..AppDocument::open("live")
    }
}

fn playing(policy: Policy) -> AppDocument {
    AppDocument { play: policy, ..app() }
}

async fn ask(access: &Access, action: Grant, name: &str, query: &str) -> Result<Grounds, AccessError> {
    let request = AccessRequest {
        action,
        stream: &StreamName::parse(name).unwrap(),
        credentials: Credentials::from_query(Some(query)),
        client: Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    access.authorize(&request).await
}

async fn play(access: &Access, query: &str) -> Result<Grounds, AccessError> {
    ask(access, Grant::Play, "live/a", query).await
}

async fn refusal(access: &Access, query: &str) -> Option<AccessError> {
    play(access, query).await.err()
}

#[tokio::test]
async fn open_app_admits_everyone_and_an_unknown_app_nobody() {
    let access = Access::with_apps(vec![AppDocument::open("live")]);
    assert!(play(&access, "").await.unwrap().is_open());
    assert!(ask(&access, Grant::Publish, "live/a", "token=x").await.unwrap().is_open());
    assert_eq!(ask(&access, Grant::Play, "other/a", "").await, Err(AccessError::UnknownApp));
    assert_eq!((access.check_app("live"), access.check_app("other")), (Ok(()), Err(AccessError::UnknownApp)));
}

#[tokio::test]
async fn each_policy_admits_what_it_requires_and_nothing_else() {
    let token = play_token("a", FAR);
    let hash = "1ccc3c871ad4f855980ed6a928cd010802670996a1b9531700489eb88be15cc5";
    let check = async |policy, query: &str, expected: Option<AccessError>| {
        let access = Access::with_apps(vec![playing(policy)]);
        assert_eq!(refusal(&access, query).await, expected, "{policy:?} {query}");
    };
    check(Policy::Key, "key=the-publish-key", None).await;
    check(Policy::Key, "token=the-publish-key", None).await;
    check(Policy::Key, "key=other", Some(AccessError::KeyInvalid)).await;
    check(Policy::Key, &format!("token={token}"), Some(AccessError::KeyInvalid)).await;
    check(Policy::Key, "", Some(AccessError::KeyMissing)).await;
    check(Policy::Jwt, &format!("token={token}"), None).await;
    check(Policy::Jwt, "key=the-publish-key", Some(AccessError::TokenMissing)).await;
    check(Policy::Jwt, "token=the-publish-key", Some(AccessError::TokenInvalid)).await;
    check(Policy::Jwt, &format!("token={}", play_token("a", 1)), Some(AccessError::TokenExpired)).await;
    check(Policy::Hash, &format!("token={hash}"), None).await;
    check(Policy::Hash, &format!("token={token}"), Some(AccessError::HashInvalid)).await;
    check(Policy::Hash, "", Some(AccessError::TokenMissing)).await;
    check(Policy::Closed, &format!("token={token}&key=the-publish-key"), Some(AccessError::Closed)).await;
}

#[tokio::test]
async fn policy_of_a_stream_overrides_the_policy_of_its_app() {
    let mut app = playing(Policy::Jwt);
    app.streams.insert("a".to_owned(), StreamPolicy { play: Some(Policy::Open), publish: Some(Policy::Closed) });
    let access = Access::with_apps(vec![app]);
    assert!(play(&access, "").await.unwrap().is_open());
    assert_eq!(ask(&access, Grant::Play, "live/b", "").await, Err(AccessError::TokenMissing));
    assert_eq!(ask(&access, Grant::Publish, "live/a", "").await, Err(AccessError::Closed));
    assert!(ask(&access, Grant::Publish, "live/b", "").await.is_ok());
}

#[tokio::test]
async fn policy_without_its_key_admits_nobody() {
    for (policy, query) in [(Policy::Key, "key=x"), (Policy::Hash, "token=x"), (Policy::Jwt, "token=x")] {
        let access = Access::with_apps(vec![AppDocument { play: policy, ..AppDocument::open("live") }]);
        assert!(play(&access, query).await.is_err(), "{policy:?}");
    }
}

#[tokio::test]
async fn networks_restrict_publishers_only() {
    let publish_networks = vec!["10.0.0.0/8".parse().unwrap()];
    let access = Access::with_apps(vec![AppDocument { publish_networks, ..app() }]);
    assert_eq!(ask(&access, Grant::Publish, "live/a", "").await, Err(AccessError::NetworkNotAllowed));
    assert!(play(&access, "").await.is_ok());
}

#[tokio::test]
async fn session_admits_until_its_token_is_revoked_or_its_policy_changes() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let token = play_token("a", FAR);
    let grounds = play(&access, &format!("token={token}")).await.unwrap();
    let query = format!("_HLS_msn=1&session={}", access.open_session(&grounds));
    let by_session = play(&access, &query).await.unwrap();
    assert!(by_session.is_session() && !grounds.is_session());
    assert!(query.ends_with(&access.open_session(&by_session)), "it ends when the first one ends");
    assert_eq!(ask(&access, Grant::Play, "live/b", &query).await, Err(AccessError::SessionInvalid));
    assert!(ask(&access, Grant::Publish, "live/a", &query).await.is_ok(), "publishing is open");

    access.set_policies(vec![playing(Policy::Jwt)], &[&token]);
    assert_eq!(refusal(&access, &query).await, Some(AccessError::TokenRevoked));
    assert_eq!(refusal(&access, &format!("token={token}")).await, Some(AccessError::TokenRevoked));
    access.set_policies(vec![playing(Policy::Closed)], &[]);
    assert_eq!(refusal(&access, &query).await, Some(AccessError::Closed));
    access.set_policies(vec![playing(Policy::Hash)], &[]);
    assert_eq!(refusal(&access, &query).await, Some(AccessError::PolicyChanged));
    let other_key =
        AppDocument { jwt_key: Some(Secret::new("another key of thirty-two bytes!")), ..playing(Policy::Jwt) };
    access.set_policies(vec![other_key], &[]);
    assert_eq!(refusal(&access, &query).await, Some(AccessError::PolicyChanged));
    access.set_policies(vec![playing(Policy::Jwt)], &[]);
    assert!(play(&access, &query).await.is_ok());
    access.set_policies(vec![], &[]);
    assert_eq!(refusal(&access, &query).await, Some(AccessError::UnknownApp));
}

/// The grounds of a client whose token expired some time ago.
fn expired_grounds(access: &Access, grounds: &Grounds) -> Grounds {
    let mut grounds = grounds.clone();
    grounds.evidence.expires_at_ms = access.0.clock.now_ms() - 31_000;
    grounds
}

#[tokio::test]
async fn running_session_ends_with_its_token_only_if_the_app_says_so() {
    for (end_at_expiry, expected) in [(false, Ok(())), (true, Err(AccessError::TokenExpired))] {
        let access = Access::with_apps(vec![AppDocument { end_at_expiry, ..playing(Policy::Jwt) }]);
        let grounds = play(&access, &format!("token={}", play_token("a", FAR))).await.unwrap();
        let expired = expired_grounds(&access, &grounds);
        assert_eq!(access.check_grounds(&access.policies(), &expired), expected);
        assert_eq!(access.check_grounds(&access.policies(), &grounds), Ok(()));
    }
}

#[tokio::test]
async fn session_admits_no_longer_than_its_token_unless_that_admitted_once() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let grounds = play(&access, &format!("token={}", play_token("a", FAR))).await.unwrap();
    let expired = format!("session={}", access.open_session(&expired_grounds(&access, &grounds)));
    assert_eq!(refusal(&access, &expired).await, Some(AccessError::TokenExpired));
    // Within the tolerated difference of clocks, a token admits, and so does its session.
    let just_expired = hs256(&format!(r#"{{"type":"play","exp":{}}}"#, access.0.clock.now_ms() / 1_000 - 5));
    let grounds = play(&access, &format!("token={just_expired}")).await.unwrap();
    assert_eq!(refusal(&access, &format!("session={}", access.open_session(&grounds))).await, None);

    let access = Access::with_apps(vec![playing(Policy::OneTimeToken)]);
    let grounds = play(&access, "token=the-token").await.unwrap();
    let expired = format!("session={}", access.open_session(&expired_grounds(&access, &grounds)));
    assert_eq!(refusal(&access, &expired).await, None);
}

#[tokio::test]
async fn token_beside_a_session_that_has_ended_admits() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let both = format!("session=old&token={}", play_token("a", FAR));
    assert_eq!(refusal(&access, &both).await, None);
    assert_eq!(refusal(&access, "session=old").await, Some(AccessError::SessionInvalid));
}

#[tokio::test]
async fn revoked_token_is_of_no_interest_once_the_stream_is_open() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let token = play_token("a", FAR);
    let grounds = play(&access, &format!("token={token}")).await.unwrap();
    access.set_policies(vec![app()], &[&token]);
    assert_eq!(access.check_grounds(&access.policies(), &grounds), Ok(()));
}

#[tokio::test]
async fn wrong_tokens_of_one_network_lock_nobody_out_whose_token_is_valid() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let wrong = format!("token={}x", play_token("a", FAR));
    let mut refusals = Vec::new();
    for _ in 0..100 {
        refusals.push(refusal(&access, &wrong).await.unwrap());
    }
    assert_eq!(refusals.iter().filter(|e| **e == AccessError::TokenInvalid).count(), 30);
    assert_eq!(refusals.last(), Some(&AccessError::TooManyGuesses));
    assert_eq!(refusal(&access, &format!("token={}", play_token("a", FAR))).await, None);
}

#[tokio::test]
async fn nodes_of_a_cluster_accept_the_sessions_and_signatures_of_each_other() {
    let [first, second] = [(); 2].map(|()| Access::with_apps(vec![playing(Policy::Jwt)]));
    let stranger = Access::new(None, &NodeSecret::new(b"the secret of another cluster"), WallClock::default());
    stranger.set_policies(vec![playing(Policy::Jwt)], &[]);
    let grounds = play(&first, &format!("token={}", play_token("a", FAR))).await.unwrap();
    let session = format!("session={}", first.open_session(&grounds));
    let stream = StreamName::parse("live/a").unwrap();
    let signature = first.sign_urls(&stream).to_string();
    assert!(play(&second, &session).await.is_ok());
    assert!(matches!(second.check_url(&stream, Some(&signature)), Ok(UrlAccess::Signed { valid_for_s: 60..=120 })));
    assert_eq!(refusal(&stranger, &session).await, Some(AccessError::SessionInvalid));
    assert_eq!(stranger.check_url(&stream, Some(&signature)), Err(AccessError::SignatureInvalid));
}

#[test]
fn media_of_a_protected_stream_needs_a_signature() {
    let stream = StreamName::parse("live/a").unwrap();
    let access = Access::with_apps(vec![playing(Policy::Key)]);
    for query in [None, Some(""), Some("sig="), Some("sig=1~x"), Some("key=the-publish-key")] {
        assert!(matches!(
            access.check_url(&stream, query),
            Err(AccessError::SignatureInvalid | AccessError::SignatureExpired)
        ));
    }
    let signature = access.sign_urls(&stream).to_string();
    access.set_policies(vec![playing(Policy::Closed)], &[]);
    assert_eq!(access.check_url(&stream, Some(&signature)), Err(AccessError::Closed));
    access.set_policies(vec![app()], &[]);
    assert_eq!(access.check_url(&stream, None), Ok(UrlAccess::Open));
}

#[tokio::test]
async fn a_million_guesses_are_refused_and_sessions_continue() {
    let access = Access::with_apps(vec![playing(Policy::Key)]);
    let grounds = play(&access, "key=the-publish-key").await.unwrap();
    let session = format!("session={}", access.open_session(&grounds));
    let (mut checked, started) = (0, Instant::now());
    for n in 0..1_000_000 {
        match refusal(&access, &format!("key={n}")).await {
            Some(AccessError::KeyInvalid) => checked += 1,
            other => assert_eq!(other, Some(AccessError::TooManyGuesses)),
        }
    }
    let permitted = 31.0 + started.elapsed().as_secs_f64() / 2.0;
    assert!(checked >= 30 && f64::from(checked) <= permitted, "{checked} of {permitted}");
    assert_eq!(refusal(&access, "key=the-publish-key").await, Some(AccessError::TooManyGuesses));
    assert!(play(&access, &session).await.is_ok());
    assert_eq!(refusal(&access, "").await, Some(AccessError::TooManyGuesses));
}

#[tokio::test]
async fn missing_and_expired_credentials_are_no_guesses() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let expired = format!("token={}", play_token("a", 1));
    for _ in 0..100 {
        assert_eq!(refusal(&access, "").await, Some(AccessError::TokenMissing));
        assert_eq!(refusal(&access, &expired).await, Some(AccessError::TokenExpired));
    }
}

struct Registry {
    folder: std::path::PathBuf,
    store: Store,
}

impl Registry {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("headwater-access-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::Embedded(Embedded::open(&folder).unwrap());
        Self { folder, store }
    }

    /// A node of the cluster that shares this registry.
    fn node(&self, app: AppDocument) -> Access {
        let secret = NodeSecret::new(b"the secret of this test");
        let access = Access::new(Some(self.store.clone()), &secret, WallClock::default());
        access.set_policies(vec![app], &[]);
        access
    }

    async fn create(&self, token: &str, expires_at_ms: u64) {
        let token = TokenDocument {
            digest: token_digest(token),
            app: "live".to_owned(),
            stream: Some("a".to_owned()),
            grants: Grant::Play,
            kind: TokenKind::OneTime,
            not_before_ms: 0,
            expires_at_ms,
            created_at_ms: 0,
            used_at_ms: None,
            revoked_at_ms: None,
        };
        self.store.create_token(&token).await.unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn one_time_token_admits_once_in_the_cluster_and_its_session_continues() {
    let registry = Registry::new();
    registry.create("the-token", FAR * 1_000).await;
    let [first, second] = [(); 2].map(|()| registry.node(playing(Policy::OneTimeToken)));
    assert_eq!(refusal(&first, "").await, Some(AccessError::TokenMissing));
    let [mut one, mut other] =
        [play(&first, "token=the-token").await.unwrap(), play(&second, "token=the-token").await.unwrap()];
    assert!(one.needs_redemption(), "the registry has not been asked");
    for _ in 0..2 {
        assert_eq!(first.check_redeemable(&one).await, Ok(()), "a check consumes nothing");
    }
    assert_eq!(first.redeem(&mut one).await, Ok(()));
    assert_eq!(second.check_redeemable(&other).await, Err(AccessError::TokenUsed));
    assert_eq!(second.redeem(&mut other).await, Err(AccessError::TokenUsed));
    assert_eq!(first.redeem(&mut one).await, Ok(()), "it has been consumed already");
    assert_eq!(one.evidence.expires_at_ms, FAR * 1_000);
    let by_session = play(&second, &format!("session={}", first.open_session(&one))).await.unwrap();
    assert!(by_session.is_session() && !by_session.needs_redemption());
}

#[tokio::test]
async fn unknown_one_time_tokens_are_guesses() {
    let registry = Registry::new();
    let access = registry.node(playing(Policy::OneTimeToken));
    for n in 0..30 {
        let mut grounds = play(&access, &format!("token={n}")).await.unwrap();
        assert_eq!(access.redeem(&mut grounds).await, Err(AccessError::TokenInvalid));
    }
    assert_eq!(refusal(&access, "token=30").await, Some(AccessError::TooManyGuesses));
    let long = format!("token={}", "t".repeat(300));
    assert_eq!(refusal(&registry.node(playing(Policy::OneTimeToken)), &long).await, Some(AccessError::TokenTooLong));
}

#[tokio::test]
async fn one_time_token_is_refused_with_a_reason_while_the_registry_is_unreachable() {
    let folder = std::env::temp_dir().join(format!("headwater-access-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = unreachable_registry(&folder).await;
    let access = Access::new(Some(store), &NodeSecret::new(b"the secret of this test"), WallClock::default());
    access.set_policies(vec![playing(Policy::OneTimeToken)], &[]);
    let mut grounds = play(&access, "token=the-token").await.unwrap();
    assert_eq!(access.redeem(&mut grounds).await, Err(AccessError::RegistryUnreachable));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn session_ends_once_when_its_client_is_no_longer_admitted() {
    let access = Access::with_apps(vec![playing(Policy::Jwt)]);
    let ended = Arc::new(Mutex::new(Vec::new()));
    let hold = |name: &'static str, grounds| {
        let ended = Arc::clone(&ended);
        access.hold(grounds, move |reason| ended.lock().unwrap().push((name, reason)))
    };
    let [token, other] = [play_token("a", FAR), play_token("*", FAR)];
    let grounds = play(&access, &format!("token={token}")).await.unwrap();
    let _permits =
        [hold("first", grounds.clone()), hold("second", play(&access, &format!("token={other}")).await.unwrap())];
    access.set_policies(vec![playing(Policy::Jwt)], &[&token]);
    assert_eq!(*ended.lock().unwrap(), [("first", AccessError::TokenRevoked)]);
    let _late = hold("late", grounds);
    assert_eq!(ended.lock().unwrap().last(), Some(&("late", AccessError::TokenRevoked)), "revoked before it was held");
    access.set_policies(vec![playing(Policy::Closed)], &[]);
    assert_eq!(ended.lock().unwrap().last(), Some(&("second", AccessError::Closed)));
    assert_eq!(ended.lock().unwrap().len(), 3);
}

async fn unreachable_registry(folder: &Path) -> Store {
    let uri_file = folder.join("uri");
    // A closed port.
    std::fs::write(&uri_file, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300000").unwrap();
    let config = config::Registry { kind: RegistryKind::MongoDb, uri_file: Some(uri_file) };
    Store::open(&config, folder).await.unwrap()
}

#[tokio::test]
async fn start_without_the_registry_uses_the_last_policies_or_refuses_everyone() {
    let folder = std::env::temp_dir().join(format!("headwater-access-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = unreachable_registry(&folder).await;
    let start = async || {
        let access = Access::new(None, &NodeSecret::new(b"the secret of this test"), WallClock::default());
        let started = Instant::now();
        access.read_policies(&mut PolicyReader::new(store.clone(), folder.clone())).await.unwrap();
        assert!(started.elapsed().as_secs() < 5);
        access
    };
    let token = play_token("a", FAR);
    let access = start().await;
    assert_eq!(refusal(&access, &format!("token={token}")).await, Some(AccessError::PoliciesUnavailable));
    assert_eq!(access.check_app("live"), Err(AccessError::PoliciesUnavailable));

    let revoked = play_token("*", FAR);
    let stored = StoredPolicies {
        apps: vec![playing(Policy::Jwt)],
        revoked: [(crate::access::token_digest(&revoked), u64::MAX)].into(),
    };
    stored.write(&folder).unwrap();
    let access = start().await;
    assert!(play(&access, &format!("token={token}")).await.is_ok());
    assert_eq!(refusal(&access, "").await, Some(AccessError::TokenMissing));
    assert_eq!(refusal(&access, &format!("token={revoked}")).await, Some(AccessError::TokenRevoked));
    std::fs::remove_dir_all(&folder).unwrap();
}
