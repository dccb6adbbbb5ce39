//! Names that are none: with slashes, dots, Unicode, of 10 kB. They neither lead around a policy
//! nor disturb the node.

use std::collections::BTreeMap;

use headwater_api::documents::{AppDocument, Policy, StreamPolicy};
use headwater_api::secret::Secret;
use headwater_tests::publish::{self, Source};

use super::nodes::{Contents, Node};
use super::protocol::Protocol;
use super::tokens::{FAR, KEY, token, token_for};

/// Every byte that is not a letter or a digit, percent-encoded.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

fn is_rtmp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::RtmpPublish | Protocol::RtmpsPublish | Protocol::RtmpPlay | Protocol::RtmpsPlay)
}

fn protected() -> AppDocument {
    AppDocument {
        publish: Policy::Jwt,
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        ..AppDocument::open("live")
    }
}

#[test]
fn names_with_slashes_dots_unicode_or_10_kb_are_refused_on_every_protocol() {
    let node = Node::start(&Contents { apps: vec![protected()], ..Contents::default() }, &[]);
    let long = "a".repeat(10_000);
    let names = [
        "a/b",
        "../a",
        "..",
        ".",
        ".a",
        "-a",
        "a b",
        "a\\b",
        "a;b",
        "a\nb",
        "ä",
        "日本語",
        "🎥",
        "%61",
        "a\u{0}b",
        &long[..129],
        &long,
    ];
    for protocol in Protocol::ALL {
        let token = token_for(protocol.action(), "*");
        for name in names {
            let shown: String = name.chars().take(20).collect();
            let id = if is_rtmp(protocol) { name.to_owned() } else { percent_encoded(name) };
            let refusal = protocol.attempt(node.at(), "live", &id, Some(&token)).expect_err(&shown);
            let is_refused = if is_rtmp(protocol) {
                refusal.contains("NetStream.")
            } else {
                refusal.starts_with('4') && !refusal.contains("token_")
            };
            assert!(is_refused, "{protocol:?}, {shown:?}: {refusal}");
        }
    }
    for line in node.process().lines() {
        assert!(line.len() < 1_000, "a name of 10 kB in the log: {line:.200}");
    }
    node.check_clean(&[]);
}

#[test]
fn token_for_an_odd_name_admits_to_no_other_stream() {
    let node = Node::start(&Contents { apps: vec![protected()], ..Contents::default() }, &[]);
    let long = "a".repeat(5_000);
    let names = ["", "A", "a ", " a", "a/", "/a", "./a", "live/a", "a.", "a\\u0000", "\\u00e4", "a*", "**", &long];
    for protocol in Protocol::ALL {
        let kind = protocol.action().as_str();
        for name in names {
            let shown: String = name.chars().take(20).collect();
            let token = token(&format!(r#"{{"streamId":"{name}","type":"{kind}","exp":{FAR}}}"#));
            protocol.check_refused(node.at(), ("live", "a"), Some(&token), "token_wrong_stream", &shown);
        }
        for claims in [r#""streamId":["a"]"#, r#""streamId":7"#, r#""streamId":{"a":1}"#] {
            let token = token(&format!(r#"{{{claims},"type":"{kind}","exp":{FAR}}}"#));
            protocol.check_refused(node.at(), ("live", "a"), Some(&token), "token_invalid", claims);
        }
    }
    node.check_clean(&[KEY]);
}

#[test]
fn policy_of_one_stream_holds_for_every_spelling_of_its_name() {
    let closed = StreamPolicy { publish: None, play: Some(Policy::Closed) };
    let app = AppDocument { streams: BTreeMap::from([("secret.v1".to_owned(), closed)]), ..AppDocument::open("live") };
    let node = Node::start(&Contents { apps: vec![app], ..Contents::default() }, &[]);
    let publish = |id: &str| publish::start_ffmpeg(&Source::default(), &node.rtmp_url(&format!("live/{id}"))).unwrap();
    let Some(_publishers) = publish("secret.v1").zip(publish("open.v1")) else { return };
    for name in ["live/secret.v1", "live/open.v1"] {
        node.wait_live(name).unwrap();
    }
    let paths = |id: &str| {
        [
            format!("/live/streams/{id}.m3u8"),
            format!("/live/streams/{id}.m3u8?"),
            format!("/live/streams/{}.m3u8", percent_encoded(id)),
            format!("/live/streams/{id}%2Em3u8"),
            format!("/live/streams/{id}_adaptive.m3u8"),
            format!("/live/streams/{id}/playlist.m3u8"),
            format!("/live/streams/{}/playlist.m3u8", percent_encoded(id)),
            format!("/live/streams/./{id}.m3u8"),
            format!("/LiveApp/../live/streams/{id}.m3u8"),
            format!("//live/streams/{id}.m3u8"),
            format!("/live//streams/{id}.m3u8"),
            format!("/live/streams/{id}.m3u8/"),
            format!("/live/streams/{id}.M3U8"),
            format!("http://localhost/live/streams/{id}.m3u8"),
        ]
    };
    // Those that lead to an open stream must not lead to the closed one.
    let open: Vec<_> = paths("open.v1").iter().map(|path| node.get(path).unwrap().status == 200).collect();
    assert!(open.iter().filter(|is_open| **is_open).count() >= 6, "{open:?}");
    for (path, is_open) in paths("secret.v1").iter().zip(open) {
        let response = node.get(path).unwrap();
        if is_open {
            assert!(response.status == 403 && response.text().contains("app_closed"), "{path}: {}", response.text());
        } else {
            assert!((400..500).contains(&response.status), "{path}: {}", response.status);
        }
    }
    for protocol in Protocol::playing() {
        protocol.check_refused(node.at(), ("live", "secret.v1"), None, "app_closed", "the closed stream");
        protocol.attempt(node.at(), "live", "open.v1", None).unwrap();
    }
    node.check_clean(&[]);
}
