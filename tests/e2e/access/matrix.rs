//! Every protocol on every node with every kind of token.

use headwater_api::documents::{AppDocument, Grant, Policy, TokenKind};
use headwater_api::secret::Secret;
use headwater_tests::publish::{self, Source};

use super::nodes::{Contents, Node};
use super::protocol::Protocol;
use super::tokens::{FAR, KEY, PYJWT, document, signed, token, token_for, unsigned};

/// The revoked token of every node.
fn revoked_token(action: Grant) -> String {
    token(&format!(r#"{{"type":"{}","exp":{FAR},"jti":"revoked"}}"#, action.as_str()))
}

/// The one-time token of every node for this protocol.
fn one_time_token(protocol: Protocol) -> String {
    format!("one-time-token-{protocol:?}")
}

/// The apps `live` and `other` require a token signed with the same key, `once` a one-time token.
fn contents() -> Contents {
    let jwt = |name| AppDocument {
        publish: Policy::Jwt,
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        ..AppDocument::open(name)
    };
    let once = AppDocument { publish: Policy::OneTimeToken, play: Policy::OneTimeToken, ..AppDocument::open("once") };
    let revoked =
        [Grant::Publish, Grant::Play].map(|action| document(&revoked_token(action), "live", action, TokenKind::Jwt));
    let one_time = Protocol::ALL
        .map(|protocol| document(&one_time_token(protocol), "once", protocol.action(), TokenKind::OneTime));
    let publisher = document("one-time-token-of-ffmpeg", "once", Grant::Publish, TokenKind::OneTime);
    Contents {
        apps: vec![jwt("live"), jwt("other"), once],
        revoked: revoked.iter().map(|token| token.digest.clone()).collect(),
        tokens: revoked.into_iter().chain(one_time).chain([publisher]).collect(),
    }
}

/// Tokens that must be refused for this action on `live/a`, each with the code of the refusal.
fn refused_tokens(action: Grant) -> Vec<(&'static str, Option<String>, &'static str)> {
    let (kind, other) = match action {
        Grant::Publish => ("publish", "play"),
        Grant::Play => ("play", "publish"),
    };
    let claims = |more: &str| format!(r#"{{"streamId":"a","type":"{kind}"{more}}}"#);
    let valid = claims(&format!(r#","exp":{FAR}"#));
    // Of an RSA key that the app does not have: a confused verifier would use it as an HMAC key.
    let public_key = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx","e":"AQAB"}"#;
    let damaged = {
        let mut token = token_for(action, "a");
        token.pop();
        token
    };
    let refused = [
        ("expired", token(&claims(r#","exp":1700000000"#)), "token_expired"),
        ("not yet valid", token(&claims(&format!(r#","exp":{FAR},"nbf":{}"#, FAR - 60))), "token_not_yet_valid"),
        ("wrong stream", token_for(action, "b"), "token_wrong_stream"),
        ("wrong type", token(&format!(r#"{{"streamId":"a","type":"{other}","exp":{FAR}}}"#)), "token_wrong_type"),
        ("wrong app", token(&claims(&format!(r#","exp":{FAR},"app":"other""#))), "token_wrong_app"),
        ("revoked", revoked_token(action), "token_revoked"),
        ("no expiry", token(&claims("")), "token_without_expiry"),
        ("another key", signed(r#"{"alg":"HS256"}"#, &valid, b"another key of at least 32 bytes"), "token_invalid"),
        ("damaged", damaged, "token_invalid"),
        ("alg none", unsigned(&valid), "token_invalid"),
        ("RS256 with an HMAC", signed(r#"{"alg":"RS256"}"#, &valid, KEY.as_bytes()), "token_invalid"),
        ("HS256 with a public key", signed(r#"{"alg":"HS256"}"#, &valid, public_key.as_bytes()), "token_invalid"),
        ("oversized", token(&claims(&format!(r#","exp":{FAR},"x":"{}""#, "x".repeat(8 << 10)))), "token_too_long"),
    ];
    let refused = refused.into_iter().map(|(case, token, code)| (case, Some(token), code));
    [("none", None, "token_missing")].into_iter().chain(refused).collect()
}

#[test]
fn every_protocol_gives_the_same_answer_on_every_node() {
    let nodes = Node::start_pair(&contents());
    let origin = &nodes[0].1;
    let url = origin.rtmp_url(&format!("live/a?token={}", token_for(Grant::Publish, "a")));
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    let url = origin.rtmp_url("once/a?token=one-time-token-of-ffmpeg");
    let Some(_other) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    for name in ["live/a", "once/a"] {
        origin.wait_live(name).unwrap();
    }
    for (name, node) in &nodes {
        for protocol in Protocol::ALL {
            for (case, token, code) in refused_tokens(protocol.action()) {
                protocol.check_refused(node.at(), ("live", "a"), token.as_deref(), code, &format!("{name}, {case}"));
            }
            // Nobody publishes these streams yet.
            let id = |n: u8| match protocol.action() {
                Grant::Publish => format!("{name}-{protocol:?}-{n}"),
                Grant::Play => "a".to_owned(),
            };
            for (id, claimed) in [(id(1), id(1)), (id(2), "*".to_owned())] {
                let token = token_for(protocol.action(), &claimed);
                let admitted = protocol.attempt(node.at(), "live", &id, Some(&token));
                admitted.unwrap_or_else(|e| panic!("{name}, {protocol:?}, a token for {claimed}: {e}"));
            }
            let token = one_time_token(protocol);
            let admitted = protocol.attempt(node.at(), "once", &id(1), Some(&token));
            admitted.unwrap_or_else(|e| panic!("{name}, {protocol:?}, a one-time token: {e}"));
            protocol.check_refused(node.at(), ("once", &id(2)), Some(&token), "token_used", "replayed");
        }
        for protocol in Protocol::playing() {
            protocol.attempt(node.at(), "live", "a", Some(PYJWT)).unwrap();
        }
        // Logs and metrics must not contain what clients presented.
        let presented = [PYJWT.to_owned(), token_for(Grant::Play, "*"), token_for(Grant::Publish, "*")];
        let secrets = Protocol::ALL.into_iter().map(one_time_token).chain(presented).chain([KEY.to_owned()]);
        let secrets: Vec<_> = secrets.collect();
        node.check_clean(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
