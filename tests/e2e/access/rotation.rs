//! Keys that are replaced while they are in use, and clocks that are wrong.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_api::documents::{AppDocument, Grant, Policy};
use headwater_api::secret::Secret;
use headwater_tests::clock::FakeClock;
use headwater_tests::daemon::Daemon;
use headwater_tests::engine::{Options, wait_status};
use headwater_tests::publish::{self, Source};
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::wait;

use super::nodes::{Contents, Node};
use super::protocol::{Addresses, Protocol};
use super::tokens::{KEY, hash_of, token};
use crate::apps;

/// Five seconds, on an idle machine.
const MAX_DURATION: Duration = Duration::from_secs(10);

/// The secret of this name in what a command printed.
fn new_secret(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix(&format!("new {name}: ")));
    line.unwrap_or_else(|| panic!("no new {name} in {printed}")).to_owned()
}

/// A viewer of `live/a` that receives media.
fn start_viewer(at: &Addresses, token: &str) -> RtmpClient {
    let mut viewer = RtmpClient::player_in(at.rtmp, "live", &format!("a?token={token}")).unwrap();
    viewer.next_video().unwrap();
    viewer
}

#[test]
fn replaced_key_ends_its_sessions_and_only_the_new_one_admits() {
    let node = Daemon::start(Options::default()).unwrap();
    node.process().wait_line("node ready").unwrap();
    let at = Addresses::of(&node.wait_endpoints(None).unwrap());
    let set = |arguments: &[&str]| apps::run(&node, &[&["app", "set", "live"][..], arguments].concat());
    let check_ended = |viewer: RtmpClient, since: Instant, what: &str| {
        viewer.wait_closed().unwrap();
        assert!(since.elapsed() < MAX_DURATION, "the session of {what} ended after {:?}", since.elapsed());
    };
    let publish = |key: &str| {
        let url = format!("rtmp://{}/live/a?key={key}", at.rtmp);
        let publisher = publish::start_ffmpeg(&Source::default(), &url).unwrap()?;
        wait_status(at.http, "live/a", "video", |s| s.video.is_some()).unwrap();
        Some(publisher)
    };

    let first = new_secret(&set(&["--publish", "key"]), "publish key");
    let Some(publisher) = publish(&first) else { return };
    let since = Instant::now();
    let key = new_secret(&set(&["--new-publish-key"]), "publish key");
    publisher.wait_exit(wait::WAIT_TIMEOUT).unwrap();
    assert!(since.elapsed() < MAX_DURATION, "the publisher ended after {:?}", since.elapsed());
    // A key may be sent as a token.
    Protocol::RtmpPublish.check_refused(&at, ("live", "b"), Some(&first), "key_invalid", "the replaced key");
    let _publisher = publish(&key).unwrap();

    let first = new_secret(&set(&["--play", "hash", "--new-hash-secret"]), "hash secret");
    let hash = |secret: &str| hash_of("a", Grant::Play, secret);
    let viewer = start_viewer(&at, &hash(&first));
    let since = Instant::now();
    let second = new_secret(&set(&["--new-hash-secret"]), "hash secret");
    check_ended(viewer, since, "a replaced hash secret");
    Protocol::Hls.check_refused(&at, ("live", "a"), Some(&hash(&first)), "hash_invalid", "the replaced secret");
    Protocol::Hls.attempt(&at, "live", "a", Some(&hash(&second))).unwrap();

    let printed = set(&["--play", "jwt", "--new-jwt-key"]);
    let keys = [first, second, key, new_secret(&printed, "JWT key")];
    let make = || apps::run(&node, &["token", "make", "live", "play", "--kind", "jwt"]).trim().to_owned();
    let first = make();
    let viewer = start_viewer(&at, &first);
    let since = Instant::now();
    set(&["--new-jwt-key"]);
    check_ended(viewer, since, "a replaced JWT key");
    Protocol::Hls.check_refused(&at, ("live", "a"), Some(&first), "token_invalid", "a token of the replaced key");
    Protocol::Hls.attempt(&at, "live", "a", Some(&make())).unwrap();
    // The publisher was not concerned.
    assert!(_publisher.is_running());
    let lines = node.process().lines();
    let has_secret = |line: &&String| keys.iter().chain([&first]).any(|secret| line.contains(secret.as_str()));
    assert_eq!(lines.iter().find(has_secret), None);
}

#[test]
fn wrong_clock_refuses_tokens_until_it_is_right_again() {
    const HOUR_SECS: i64 = 3_600;
    let Some(clock) = FakeClock::new().unwrap() else { return };
    let app = AppDocument {
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        end_at_expiry: true,
        ..AppDocument::open("live")
    };
    let options = Options { environment: clock.environment(), ..Options::default() };
    let node = Node::start_with(&Contents { apps: vec![app], ..Contents::default() }, &[], options);
    let Some(_publisher) = publish::start_ffmpeg(&Source::default(), &node.rtmp_url("live/a")).unwrap() else { return };
    node.wait_live("live/a").unwrap();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // Within the tolerance of 30 seconds, and with nothing to spare.
    let token = token(&format!(r#"{{"type":"play","nbf":{},"exp":{}}}"#, now_s + 20, now_s + 600));
    let attempt = || Protocol::Hls.attempt(node.at(), "live", "a", Some(&token));
    attempt().unwrap();
    let viewer = start_viewer(node.at(), &token);
    for (offset, code) in [(-HOUR_SECS, "token_not_yet_valid"), (HOUR_SECS, "token_expired")] {
        clock.set_offset(offset).unwrap();
        wait::until(code, || attempt().err().filter(|refusal| refusal.contains(code))).unwrap();
    }
    // With `end_at_expiry`, a session ends when the node believes that its token has expired.
    viewer.wait_closed().unwrap();
    clock.set_offset(0).unwrap();
    wait::until("the token to be valid again", || attempt().ok()).unwrap();
    node.check_clean(&[&token]);
}
