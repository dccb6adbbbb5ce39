//! Ant Media's hash control on every protocol and every node.

use headwater_api::documents::{AppDocument, Grant, Policy};
use headwater_api::secret::Secret;
use headwater_tests::publish::{self, Source};

use super::nodes::{Contents, Node};
use super::protocol::Protocol;
use super::tokens::hash_of;

const SECRET: &str = "the hash secret of this test";

#[test]
fn hash_of_ant_media_admits_to_its_stream_and_action_on_every_protocol() {
    let app = AppDocument {
        publish: Policy::Hash,
        play: Policy::Hash,
        hash_secret: Some(Secret::new(SECRET)),
        ..AppDocument::open("live")
    };
    let nodes = Node::start_pair(&Contents { apps: vec![app], ..Contents::default() });
    let origin = &nodes[0].1;
    let url = origin.rtmp_url(&format!("live/a?token={}", hash_of("a", Grant::Publish, SECRET)));
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    origin.wait_live("live/a").unwrap();
    for (name, node) in &nodes {
        for protocol in Protocol::ALL {
            let action = protocol.action();
            let (id, other) = match action {
                Grant::Publish => (format!("{name}-{protocol:?}"), Grant::Play),
                Grant::Play => ("a".to_owned(), Grant::Publish),
            };
            let valid = hash_of(&id, action, SECRET);
            let refused = [
                ("nothing", None, "token_missing"),
                ("of the other action", Some(hash_of(&id, other, SECRET)), "hash_invalid"),
                ("of another stream", Some(hash_of("b", action, SECRET)), "hash_invalid"),
                ("with another secret", Some(hash_of(&id, action, "another secret")), "hash_invalid"),
                ("truncated", Some(valid[..63].to_owned()), "hash_invalid"),
                ("the secret itself", Some(SECRET.replace(' ', "+")), "hash_invalid"),
            ];
            for (case, hash, code) in refused {
                protocol.check_refused(node.at(), ("live", &id), hash.as_deref(), code, &format!("{name}, {case}"));
            }
            let admitted = protocol.attempt(node.at(), "live", &id, Some(&valid));
            admitted.unwrap_or_else(|e| panic!("{name}, {protocol:?}: {e}"));
        }
        let upper_case = hash_of("a", Grant::Play, SECRET).to_ascii_uppercase();
        Protocol::Hls.attempt(node.at(), "live", "a", Some(&upper_case)).unwrap();
        node.check_clean(&[SECRET, &hash_of("a", Grant::Play, SECRET), &hash_of("a", Grant::Publish, SECRET)]);
    }
}
