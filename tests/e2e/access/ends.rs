//! Running sessions end on every node of a cluster when their token is revoked, and when their app
//! is closed.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headwater_api::documents::Grant;
use headwater_tests::cluster::Node;
use headwater_tests::http;
use headwater_tests::mongo::Database;
use headwater_tests::pion::Viewer;
use headwater_tests::process::Process;
use headwater_tests::rtmp::RtmpClient;
use headwater_tests::wait::{self, WAIT_TIMEOUT};

use super::cluster::{Cluster, addresses, make_token, publish};
use crate::apps;

/// Five seconds, on an idle machine.
const MAX_DURATION: Duration = Duration::from_secs(20);

/// A running session: the thread waits for its end and returns when that was.
struct Session {
    what: String,
    ended: JoinHandle<Instant>,
}

impl Session {
    fn new(what: String, wait_end: impl FnOnce() + Send + 'static) -> Self {
        let ended = std::thread::spawn(move || {
            wait_end();
            Instant::now()
        });
        Self { what, ended }
    }

    /// A publisher, which ends when the node closes its connection.
    fn publisher(what: &str, publisher: Process) -> Self {
        Self::new(what.to_owned(), move || {
            publisher.wait_exit(WAIT_TIMEOUT).unwrap();
        })
    }
}

/// Checks that all sessions end in time after this moment, and returns the latest one.
fn check_end(since: Instant, sessions: Vec<Session>) -> String {
    let ended = sessions.into_iter().map(|Session { what, ended }| {
        let after = ended.join().unwrap_or_else(|_| panic!("{what} has not ended")).saturating_duration_since(since);
        assert!(after < MAX_DURATION, "{what} ended after {after:?}");
        (after, what)
    });
    let (after, what) = ended.max().unwrap();
    format!("the last of them, {what}, after {} ms", after.as_millis())
}

/// Viewers of `vip/a` over RTMP, WHEP and HLS at a node, with this token. HLS must end with `code`.
fn start_viewers(name: &str, node: &Node, token: &str, code: &'static str) -> Option<Vec<Session>> {
    let at = addresses(node);
    let whep_url = format!("http://{}/vip/whep/a?token={token}", at.http);
    let whep = Viewer::start(&whep_url, &["-seconds", "60", "-until-end"]).unwrap()?;
    whep.wait_playing().unwrap();
    let entry = http::get(at.http, &format!("/vip/streams/a.m3u8?token={token}")).unwrap();
    assert_eq!(entry.status, 200, "{name}: {}", entry.text());
    let text = entry.text();
    let media_uri = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
    let media_path = format!("/vip/streams/{media_uri}");
    let mut rtmp = RtmpClient::player_in(at.rtmp, "vip", &format!("a?token={token}")).unwrap();
    rtmp.next_video().unwrap();
    let check_playlist = move || {
        let response = http::get(at.http, &media_path).unwrap();
        if response.status == 200 {
            return None;
        }
        assert!(response.status == 403 && response.text().contains(code), "{} {}", response.status, response.text());
        Some(())
    };
    assert_eq!(check_playlist(), None, "{name}");
    Some(vec![
        Session::new(format!("WHEP on the {name}"), move || {
            let report = whep.wait_report().unwrap();
            // Pion may handle the end of DTLS before the BYE in front of it.
            assert!(report.closed_by_server, "{report:?}");
        }),
        Session::new(format!("RTMP on the {name}"), move || rtmp.wait_closed().unwrap()),
        Session::new(format!("HLS on the {name}"), move || wait::until("a refused playlist", check_playlist).unwrap()),
    ])
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures that were measured")]
fn sessions_end_on_every_node_when_their_token_is_revoked_or_their_app_closed() {
    let Some(database) = Database::start().unwrap() else { return };
    let Some(cluster) = Cluster::start(database.uri()) else { return };
    let (origin, edge) = (&cluster.origin, &cluster.edge);
    let administer = |node: &Node, arguments: &[&str]| apps::run(&node.daemon, arguments);
    administer(origin, &["app", "create", "vip", "--publish", "jwt", "--play", "jwt", "--new-jwt-key"]);
    cluster.wait_protected("vip");
    let token = |action| make_token(origin, "vip", action, "jwt");
    let (publish_token, other_publish_token) = (token(Grant::Publish), token(Grant::Publish));
    let (play_token, other_play_token) = (token(Grant::Play), token(Grant::Play));
    let Some(publisher) = publish(origin, "vip/a", &other_publish_token) else { return };
    let viewers = |token: &str, code| -> Option<Vec<Session>> {
        let viewers = cluster.nodes().map(|(name, node)| start_viewers(name, node, token, code));
        viewers.into_iter().try_fold(Vec::new(), |all, some| Some([all, some?].into_iter().flatten().collect()))
    };
    let Some(others) = viewers(&other_play_token, "app_closed") else { return };

    // Viewers, and publishers on both nodes: each by its own token.
    let Some(revoked) = viewers(&play_token, "token_revoked") else { return };
    let since = Instant::now();
    administer(edge, &["token", "revoke", "vip", &play_token]);
    println!("viewers of a revoked token: {}", check_end(since, revoked));
    let publishers = [("origin", origin), ("edge", edge)].map(|(name, node)| {
        let publisher = publish(node, &format!("vip/on-{name}"), &publish_token).unwrap();
        Session::publisher(&format!("RTMP publisher on the {name}"), publisher)
    });
    let since = Instant::now();
    administer(origin, &["token", "revoke", "vip", &publish_token]);
    println!("publishers of a revoked token: {}", check_end(since, publishers.into()));

    // Those of other tokens have continued, until the app is closed.
    assert!(publisher.is_running() && others.iter().all(|session| !session.ended.is_finished()));
    let since = Instant::now();
    administer(edge, &["app", "set", "vip", "--publish", "closed", "--play", "closed"]);
    let mut all = others;
    all.push(Session::publisher("RTMP publisher on the origin", publisher));
    println!("a closed app: {}", check_end(since, all));
    for (name, node) in cluster.nodes() {
        let lines = node.daemon.process().lines();
        let secrets = [&publish_token, &other_publish_token, &play_token, &other_play_token];
        let has_secret = |line: &&String| secrets.iter().any(|secret| line.contains(secret.as_str()));
        assert_eq!(lines.iter().find(|line| line.contains("panicked at") || has_secret(line)), None, "{name}");
    }
}
