//! Every limit of an app's document, from both sides.

use std::collections::BTreeMap;

use crate::IpNetwork;
use crate::documents::{AppDocument, InvalidApp, Policy, StreamPolicy};
use crate::secret::Secret;

use super::*;

/// Applies a change to an open app and validates it.
fn validate(change: impl FnOnce(&mut AppDocument)) -> Result<(), InvalidApp> {
    let mut app = AppDocument::open("live");
    change(&mut app);
    app.validate()
}

fn secret(len: usize) -> Option<Secret> {
    Some(Secret::new("k".repeat(len)))
}

#[test]
fn open_and_closed_apps_need_no_keys() {
    assert_eq!(validate(|_| ()), Ok(()));
    assert_eq!(validate(|app| (app.publish, app.play) = (Policy::Closed, Policy::OneTimeToken)), Ok(()));
}

#[test]
fn policy_without_its_key_is_refused() {
    let check = |policy, give: fn(&mut AppDocument)| {
        for set in [
            (|app, policy| app.publish = policy) as fn(&mut AppDocument, Policy),
            |app, policy| app.play = policy,
            |app, policy| _ = app.streams.insert("a".to_owned(), StreamPolicy { publish: Some(policy), play: None }),
            |app, policy| _ = app.streams.insert("a".to_owned(), StreamPolicy { publish: None, play: Some(policy) }),
        ] {
            let error = validate(|app| set(app, policy)).unwrap_err();
            assert!(matches!(error, InvalidApp::MissingKey { .. }), "{policy:?}: {error}");
            let outcome = validate(|app| {
                set(app, policy);
                give(app);
            });
            assert_eq!(outcome, Ok(()), "{policy:?}");
        }
    };
    check(Policy::Key, |app| app.publish_key = secret(MIN_KEY_BYTES));
    check(Policy::Hash, |app| app.hash_secret = secret(MIN_KEY_BYTES));
    check(Policy::Jwt, |app| app.jwt_key = secret(MIN_JWT_KEY_BYTES));
    check(Policy::Jwt, |app| app.jwks_url = Some("https://id.example.com/keys".to_owned()));
}

#[test]
fn each_key_has_a_minimum_and_a_maximum_length() {
    let check = |set: fn(&mut AppDocument, Option<Secret>), min: usize| {
        for (len, valid) in
            [(0, false), (min - 1, false), (min, true), (MAX_KEY_BYTES, true), (MAX_KEY_BYTES + 1, false)]
        {
            assert_eq!(validate(|app| set(app, secret(len))).is_ok(), valid, "{len}");
        }
    };
    check(|app, key| app.publish_key = key, MIN_KEY_BYTES);
    check(|app, key| app.hash_secret = key, MIN_KEY_BYTES);
    check(|app, key| app.jwt_key = key, MIN_JWT_KEY_BYTES);
}

#[test]
fn publish_key_has_only_characters_that_survive_a_url() {
    let check = |key: &str| validate(|app| app.publish_key = Some(Secret::new(key)));
    assert_eq!(check("aZ09-_.~"), Ok(()));
    for bad in
        ["with space", "ampers&and", "questi?on", "percent%20", "plus+plus", "slash/slash", "ünicode-key", "hash#key"]
    {
        assert_eq!(check(bad), Err(InvalidApp::KeyCharacter), "{bad}");
    }
}

#[test]
fn names_and_stream_ids_follow_the_rule_for_names() {
    for bad in ["", ".", "a/b", "ä", &"a".repeat(65)] {
        let error = validate(|app| app.name = bad.to_owned()).unwrap_err();
        assert!(matches!(error, InvalidApp::Name(_)), "{bad:?}: {error}");
    }
    let with_stream = |id: &str| validate(|app| _ = app.streams.insert(id.to_owned(), StreamPolicy::default()));
    assert_eq!(with_stream("cam.1"), Ok(()));
    assert_eq!(with_stream(&"a".repeat(128)), Ok(()));
    for bad in ["", "..", "a/b", "ü", &"a".repeat(129), &"x".repeat(10_000)] {
        let error = with_stream(bad).unwrap_err();
        assert!(matches!(error, InvalidApp::StreamId { .. }) && error.to_string().len() < 400, "{error}");
    }
}

#[test]
fn lists_are_bounded() {
    let check = |fill: fn(&mut AppDocument, usize), limit: usize| {
        assert_eq!(validate(|app| fill(app, limit)), Ok(()));
        let error = validate(|app| fill(app, limit + 1)).unwrap_err();
        assert!(matches!(error, InvalidApp::TooMany { len, .. } if len == limit + 1), "{error}");
    };
    check(
        |app, n| app.streams = (0..n).map(|n| (n.to_string(), StreamPolicy::default())).collect::<BTreeMap<_, _>>(),
        MAX_STREAM_POLICIES,
    );
    check(
        |app, n| {
            let address = |n: usize| std::net::Ipv4Addr::from_bits(n as u32).into();
            app.publish_networks = (0..n).map(|n| IpNetwork::of(address(n), 32)).collect();
        },
        MAX_PUBLISH_NETWORKS,
    );
    check(
        |app, n| app.allowed_origins = (0..n).map(|n| format!("https://{n}.example.com")).collect(),
        MAX_ALLOWED_ORIGINS,
    );
}

#[test]
fn origins_are_in_the_form_that_browsers_send() {
    let check = |origin: &str| validate(|app| app.allowed_origins = vec![origin.to_owned()]);
    for good in ["https://example.com", "http://localhost:8080", "https://[2001:db8::1]:8443", "http://192.0.2.1"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let long = format!("https://{}.com", "a".repeat(MAX_ORIGIN_BYTES));
    for bad in [
        "",
        "*",
        "null",
        "example.com",
        "https://",
        "https://example.com/",
        "https://Example.com",
        "ftp://example.com",
        "https://a b",
        "https://a;script-src",
        "https://a:0",
        "https://a:65536",
        "https://a:+1",
        "https://[::1",
        "https://a:",
        &long,
    ] {
        assert!(matches!(check(bad), Err(InvalidApp::Origin { .. })), "{bad:?}");
    }
}

#[test]
fn jwks_url_is_https_unless_private_networks_are_allowed() {
    let check = |url: &str, private: bool| {
        validate(|app| (app.jwks_url, app.jwks_private) = (Some(url.to_owned()), private)).is_ok()
    };
    assert!(check("https://id.example.com/.well-known/jwks.json?v=1", false));
    assert!(check("https://[2001:db8::1]:8443/keys", false));
    assert!(!check("http://id.example.com/keys", false) && check("http://id.example.com/keys", true));
    for bad in [
        "",
        "https://",
        "https:///keys",
        "https://user@host/",
        "https://host/#a",
        "https://host/a b",
        "file:///etc/passwd",
    ] {
        assert!(!check(bad, true), "{bad:?}");
    }
    let url = |len: usize| format!("https://host/{}", "a".repeat(len - 13));
    assert!(check(&url(MAX_JWKS_URL_BYTES), false) && !check(&url(MAX_JWKS_URL_BYTES + 1), false));
}

#[test]
fn document_of_an_earlier_version_can_be_read() {
    let app: AppDocument = serde_json::from_str(
        r#"{"name":"live","publish":"publish_key","play":"open","publish_key":"k","jwt_key":null}"#,
    )
    .unwrap();
    let expected =
        AppDocument { publish: Policy::Key, publish_key: Some(Secret::new("k")), ..AppDocument::open("live") };
    assert_eq!(app, expected);
    assert_eq!(serde_json::from_str::<AppDocument>(r#"{"name":"live"}"#).unwrap(), AppDocument::open("live"));
}

#[test]
fn policies_of_streams_are_stored_as_a_list_and_override_those_of_the_app() {
    let mut app = AppDocument::open("live");
    app.streams.insert("cam.1".to_owned(), StreamPolicy { publish: None, play: Some(Policy::Closed) });
    let stored = serde_json::to_value(&app).unwrap();
    assert_eq!(stored["streams"], serde_json::json!([{ "stream": "cam.1", "play": "closed" }]));
    assert_eq!(serde_json::from_value::<AppDocument>(stored).unwrap(), app);
    assert_eq!((app.publish_policy("cam.1"), app.play_policy("cam.1")), (Policy::Open, Policy::Closed));
    assert_eq!(app.play_policy("cam"), Policy::Open);
}
