//! ffmpeg with a wrong and with the right publish key, over RTMP and RTMPS.

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::secret::Secret;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::WAIT_TIMEOUT;

use super::nodes::{Contents, Node};

/// The app `live`, to which publishers need this key.
pub(crate) fn app_with_key(key: &str) -> AppDocument {
    AppDocument { publish: Policy::Key, publish_key: Some(Secret::new(key)), ..AppDocument::open("live") }
}

#[test]
fn ffmpeg_publishes_with_the_right_key_and_learns_why_a_wrong_one_is_refused() {
    const KEY: &str = "the-right-publish-key";
    let node = Node::start(&Contents { apps: vec![app_with_key(KEY)], ..Contents::default() }, &[]);
    let url = |is_tls: bool, name: &str| if is_tls { node.rtmps_url(name) } else { node.rtmp_url(name) };
    for is_tls in [false, true] {
        for (query, sentence) in [
            ("", "A key is required: add ?key=KEY to the stream id or the URL."),
            ("?key=a-wrong-publish-key", "The key is wrong."),
        ] {
            let seen = node.process().line_count();
            let started = publish::start_ffmpeg(&Source::default(), &url(is_tls, &format!("live/a{query}"))).unwrap();
            let Some(refused) = started else { return };
            assert!(!refused.wait_exit(WAIT_TIMEOUT).unwrap().success());
            assert!(refused.lines().iter().any(|line| line.contains(sentence)), "{:?}", refused.lines());
            let line = node.process().wait_line_from(seen, "publish refused").unwrap();
            assert!(line.contains("app=live stream_id=a ") && line.contains(sentence), "{line}");
        }
        // In the query of the stream, and in that of the app.
        for (id, name) in [("a", format!("live/a?key={KEY}")), ("b", format!("live?key={KEY}/b"))] {
            let publisher = publish::start_ffmpeg(&Source::default(), &url(is_tls, &name)).unwrap().unwrap();
            node.wait_live(&format!("live/{id}")).unwrap();
            drop(publisher);
            node.wait_ended(&format!("live/{id}")).unwrap();
        }
    }
    node.check_clean(&[KEY, "a-wrong-publish-key"]);
}
