//! HLS under a play policy: what the token, the play session and the signatures of one node are
//! worth on another.

use headwater_api::documents::{AppDocument, Policy};
use headwater_api::secret::Secret;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait;

use super::nodes::{Contents, Node};
use super::tokens::{KEY, PYJWT};

#[test]
fn session_and_signatures_of_one_node_are_valid_on_another() {
    let app = AppDocument {
        publish: Policy::Open,
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        ..AppDocument::open("live")
    };
    let [(_, origin), (_, edge)] = Node::start_pair(&Contents { apps: vec![app], ..Contents::default() });
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &origin.rtmp_url("live/a")).unwrap() else {
        return;
    };
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
