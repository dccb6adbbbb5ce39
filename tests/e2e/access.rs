//! Who may publish and watch: every protocol, on the node that has the stream and on one that
//! relays it, with every kind of credentials.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::documents::{AppDocument, Grant, Policy, TokenDocument, TokenKind};
use headwater_api::secret::Secret;
use headwater_registry::{Apps as _, Embedded, Tokens as _};
use headwater_tests::engine::{Engine, Options};
use headwater_tests::publish::{self, Source};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::temp::TempDir;
use headwater_tests::{http, wait};
use ring::{digest, hmac};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const FAR: u64 = 4_000_000_000;
const CLUSTER_SECRET: &str = "the secret of this test's cluster\n";
/// Made by PyJWT 2.15.1: `jwt.encode({"streamId": "a", "type": "play", "exp": 4000000000}, KEY)`.
const PYJWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
    eyJzdHJlYW1JZCI6ImEiLCJ0eXBlIjoicGxheSIsImV4cCI6NDAwMDAwMDAwMH0.5VWxfmRAZzWTqmqFtindIZFPPFdCClyXCDlm0x8balo";
/// An offer to receive H.264 and Opus, in the form of Chromium.
const OFFER: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 102\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlzb\r\n\
    a=fingerprint:sha-256 0F:74:31:25:CB:A2:13:EC:28:6F:6D:2C:61:FF:5D:C2:BC:B9:DB:3D:98:14:8D:1A:BB:EA:33:0C:A4:60:A8:8E\r\n\
    a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:102 H264/90000\r\n\
    a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";

/// A token of this header and these claims, signed with an HMAC.
fn signed(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag))
}

fn token(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims, KEY.as_bytes())
}

/// A token for this action on `id`.
fn token_for(action: Grant, id: &str) -> String {
    token(&format!(r#"{{"streamId":"{id}","type":"{}","exp":{FAR}}}"#, action.as_str()))
}

/// What the registry knows a token by: of a JSON web token, what is signed.
fn digest_of(token: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    digest::digest(&digest::SHA256, signed.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The revoked token of every node.
fn revoked_token(action: Grant) -> String {
    token(&format!(r#"{{"type":"{}","exp":{FAR},"jti":"revoked"}}"#, action.as_str()))
}

/// The one-time token of every node for this protocol.
fn one_time_token(protocol: Protocol) -> String {
    format!("one-time-token-{protocol:?}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    RtmpPublish,
    RtmpPlay,
    Whep,
    Hls,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::RtmpPublish, Self::RtmpPlay, Self::Whep, Self::Hls];

    fn action(self) -> Grant {
        if self == Self::RtmpPublish { Grant::Publish } else { Grant::Play }
    }

    /// Tries to publish or play, and returns the status of a refusal.
    fn attempt(self, node: &Engine, app: &str, id: &str, query: &str) -> Result<(), String> {
        let expect_ok = |response: http::Response, status: u16| {
            if response.status == status {
                Ok(response)
            } else {
                Err(format!("{} {}", response.status, response.text()))
            }
        };
        match self {
            Self::RtmpPublish => RtmpClient::publisher_in(node.rtmp(), app, &format!("{id}{query}"))
                .map(drop)
                .map_err(|e| format!("{e:#}")),
            Self::RtmpPlay => {
                RtmpClient::player_in(node.rtmp(), app, &format!("{id}{query}")).map(drop).map_err(|e| format!("{e:#}"))
            }
            Self::Whep => {
                let headers = [("content-type", "application/sdp")];
                let path = format!("/{app}/whep/{id}{query}");
                let response = http::request(node.http(), "POST", &path, &headers, OFFER.as_bytes()).unwrap();
                expect_ok(response, 201).map(drop)
            }
            Self::Hls => expect_ok(node.get(&format!("/{app}/streams/{id}.m3u8{query}")).unwrap(), 200).map(drop),
        }
    }

    /// True if the refusal says what it must: the code in HTTP, the status in RTMP.
    fn says(self, refusal: &str, code: &str) -> bool {
        match self {
            Self::RtmpPublish => refusal.contains("NetStream.Publish.Unauthorized"),
            Self::RtmpPlay => refusal.contains("NetStream.Play.Failed"),
            Self::Whep | Self::Hls => {
                let status = if code.ends_with("_missing") { "401 " } else { "403 " };
                refusal.starts_with(status) && refusal.contains(&format!("\"error\":\"{code}\""))
            }
        }
    }
}

/// The apps of every node: `live` and `other` require a token signed with the same key, `once` a
/// one-time token; everyone may publish to the last one.
fn apps() -> Vec<AppDocument> {
    let jwt = |name| AppDocument {
        publish: Policy::Jwt,
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        ..AppDocument::open(name)
    };
    let once = AppDocument { play: Policy::OneTimeToken, ..AppDocument::open("once") };
    vec![jwt("live"), jwt("other"), once]
}

/// Starts a node that requests streams it does not have from `origins`.
fn start_node(folder: &TempDir, origins: &[SocketAddr]) -> Engine {
    let (secret, data_dir) = (folder.write("cluster-secret", CLUSTER_SECRET).unwrap(), folder.path().join("data"));
    std::fs::create_dir(&data_dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let registry = Embedded::open(&data_dir).unwrap();
        let stored = registry.apps().await.unwrap();
        for app in apps() {
            let revision = stored.iter().find(|known| known.name == app.name).map_or(0, |known| known.revision);
            registry.put_app(&AppDocument { revision, ..app }).await.unwrap();
        }
        let document = |digest, app: &str, grants, kind| TokenDocument {
            digest,
            app: app.to_owned(),
            stream: None,
            grants,
            kind,
            not_before_ms: 0,
            expires_at_ms: FAR * 1_000,
            created_at_ms: 0,
            used_at_ms: None,
            revoked_at_ms: None,
        };
        for action in [Grant::Publish, Grant::Play] {
            let digest = digest_of(&revoked_token(action));
            registry.create_token(&document(digest.clone(), "live", action, TokenKind::Jwt)).await.unwrap();
            assert!(registry.revoke_token(&digest).await.unwrap());
        }
        for protocol in Protocol::ALL {
            let digest = digest_of(&one_time_token(protocol));
            registry.create_token(&document(digest, "once", Grant::Play, TokenKind::OneTime)).await.unwrap();
        }
    });
    Engine::start(Options::with(|c| {
        c.node.data_dir = data_dir;
        c.relay.listen = "127.0.0.1:0".parse().unwrap();
        c.relay.secret_file = Some(secret);
        c.relay.origins = origins.to_vec();
    }))
    .unwrap()
}

/// Tokens that must be refused for this action on `live/a`, each with the code of the refusal.
fn refused_tokens(action: Grant) -> Vec<(&'static str, String, &'static str)> {
    let (kind, other) = match action {
        Grant::Publish => ("publish", "play"),
        Grant::Play => ("play", "publish"),
    };
    let claims = |more: &str| format!(r#"{{"streamId":"a","type":"{kind}"{more}}}"#);
    let valid = claims(&format!(r#","exp":{FAR}"#));
    // Of an RSA key that the app does not have: a confused verifier would use it as an HMAC key.
    let public_key = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx","e":"AQAB"}"#;
    vec![
        ("none", String::new(), "token_missing"),
        ("expired", token(&claims(r#","exp":1700000000"#)), "token_expired"),
        ("not yet valid", token(&claims(&format!(r#","exp":{FAR},"nbf":{}"#, FAR - 60))), "token_not_yet_valid"),
        ("wrong stream", token_for(action, "b"), "token_wrong_stream"),
        ("wrong type", token(&format!(r#"{{"streamId":"a","type":"{other}","exp":{FAR}}}"#)), "token_wrong_type"),
        ("wrong app", token(&claims(&format!(r#","exp":{FAR},"app":"other""#))), "token_wrong_app"),
        ("revoked", revoked_token(action), "token_revoked"),
        ("no expiry", token(&claims("")), "token_invalid"),
        ("alg none", format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(&valid)), "token_invalid"),
        ("RS256 with an HMAC", signed(r#"{"alg":"RS256"}"#, &valid, KEY.as_bytes()), "token_invalid"),
        ("HS256 with a public key", signed(r#"{"alg":"HS256"}"#, &valid, public_key.as_bytes()), "token_invalid"),
        ("oversized", token(&claims(&format!(r#","exp":{FAR},"x":"{}""#, "x".repeat(8 << 10)))), "token_too_long"),
    ]
}

#[test]
fn every_protocol_gives_the_same_answer_on_every_node() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let origin = start_node(&folders[0], &[]);
    let edge = start_node(&folders[1], &[origin.endpoints().relay.unwrap()]);
    let url = origin.rtmp_url(&format!("live/a?token={}", token_for(Grant::Publish, "a")));
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    let Some(_other) = publish::start_ffmpeg(&Source::default(), &origin.rtmp_url("once/a")).unwrap() else { return };
    for name in ["live/a", "once/a"] {
        origin.wait_live(name).unwrap();
    }
    for (name, node) in [("origin", &origin), ("edge", &edge)] {
        for protocol in Protocol::ALL {
            for (case, token, code) in refused_tokens(protocol.action()) {
                let query = if token.is_empty() { String::new() } else { format!("?token={token}") };
                let refusal = protocol.attempt(node, "live", "a", &query).expect_err(case);
                assert!(protocol.says(&refusal, code), "{name}, {protocol:?}, {case}: {refusal}");
            }
        }
        for protocol in [Protocol::RtmpPlay, Protocol::Whep, Protocol::Hls] {
            for token in [PYJWT.to_owned(), token_for(Grant::Play, "*")] {
                protocol.attempt(node, "live", "a", &format!("?token={token}")).unwrap();
            }
        }
        for protocol in [Protocol::RtmpPlay, Protocol::Whep, Protocol::Hls] {
            let query = format!("?token={}", one_time_token(protocol));
            protocol.attempt(node, "once", "a", &query).unwrap_or_else(|e| panic!("{name}, {protocol:?}: {e}"));
            let refusal = protocol.attempt(node, "once", "a", &query).expect_err("replayed");
            assert!(protocol.says(&refusal, "token_used"), "{name}, {protocol:?}: {refusal}");
        }
        let id = format!("new-{name}");
        Protocol::RtmpPublish
            .attempt(node, "live", &id, &format!("?token={}", token_for(Grant::Publish, &id)))
            .unwrap();
        assert_eq!(node.panics(), [""; 0]);
        let metrics = http::get(node.health(), "/metrics").unwrap().text();
        assert!(metrics.contains("headwater_access_refused_total{action=\"publish\",reason=\"token_expired\"} 1"));
        // Logs and metrics must not contain what clients presented.
        let secrets = [KEY, &token_for(Grant::Play, "*"), &one_time_token(Protocol::Hls)].map(str::to_owned);
        for line in node.process().lines().iter().chain(metrics.lines().map(str::to_owned).collect::<Vec<_>>().iter()) {
            assert!(!secrets.iter().any(|secret| line.contains(secret.as_str())), "{line}");
        }
    }
}

#[test]
fn session_and_signatures_of_one_node_are_valid_on_another() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let origin = start_node(&folders[0], &[]);
    let edge = start_node(&folders[1], &[origin.endpoints().relay.unwrap()]);
    let url = origin.rtmp_url(&format!("live/a?token={}", token_for(Grant::Publish, "a")));
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    origin.wait_live("live/a").unwrap();
    let entry = wait::until("the entry playlist", || {
        let response = edge.get(&format!("/live/streams/a.m3u8?token={PYJWT}")).ok()?;
        (response.status == 200).then(|| response.text())
    })
    .unwrap();
    let uri = |text: &str| text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned);
    let media_path = format!("/live/streams/{}", uri(&entry).unwrap());
    let media = origin.get(&media_path).unwrap();
    assert_eq!((media.status, media.header("cache-control")), (200, Some("private, no-store")), "{}", media.text());
    let segment_path = format!("/live/streams/{}", uri(&media.text()).unwrap());
    for node in [&origin, &edge] {
        let segment = node.get(&segment_path).unwrap();
        assert_eq!(segment.status, 200, "{}", segment.text());
        assert!(segment.header("cache-control").unwrap().starts_with("public, max-age="), "{:?}", segment.headers);
        let unsigned = node.get(segment_path.split_once('?').unwrap().0).unwrap();
        assert_eq!(unsigned.status, 403, "{}", unsigned.text());
    }
    // An ordinary player follows the playlists by itself.
    let Some(mut player) = publish::ffmpeg_command() else { return };
    player.args(["-i", &edge.http_url(&format!("/live/streams/a.m3u8?token={PYJWT}"))]);
    let status = player.args(["-t", "3", "-c", "copy", "-f", "null", "-"]).status().unwrap();
    assert!(status.success());
}
