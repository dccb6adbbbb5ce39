//! A cluster whose registry is unreachable: known apps keep their policies, also on an engine that
//! restarts, and what only the registry knows is refused with a sentence.

use headwater_api::documents::Grant;
use headwater_tests::mongo::Database;
use headwater_tests::replica_set;
use headwater_tests::tapped_proxy::{LinkState, TappedProxy};
use headwater_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use super::cluster::{Cluster, addresses, make_token, publish};
use super::protocol::Protocol;
use crate::apps;

#[test]
fn known_apps_keep_their_policies_while_the_registry_is_unreachable() {
    let Some(database) = Database::start().unwrap() else { return };
    let runtime = Runtime::new().unwrap();
    let (login, server) = replica_set::split_uri(database.uri()).unwrap();
    let proxy = TappedProxy::start(runtime.handle(), server).unwrap();
    let uri = format!("mongodb://{login}{}/?directConnection=true", proxy.address());
    let Some(cluster) = Cluster::start(&uri) else { return };
    let (origin, edge) = (&cluster.origin, &cluster.edge);
    for (app, play) in [("vip", "jwt"), ("once", "one_time_token")] {
        let policies = ["--publish", "jwt", "--play", play, "--new-jwt-key"];
        apps::run(&origin.daemon, &[&["app", "create", app][..], &policies].concat());
        cluster.wait_protected(app);
    }
    let jwt = make_token(origin, "vip", Grant::Play, "jwt");
    let one_time = make_token(origin, "once", Grant::Play, "one-time");
    let publish_to = |app: &str| publish(origin, &format!("{app}/a"), &make_token(origin, app, Grant::Publish, "jwt"));
    let Some(_publishers) = publish_to("vip").zip(publish_to("once")) else { return };
    // The edge has relayed both streams.
    let other = make_token(origin, "once", Grant::Play, "one-time");
    for (app, token) in [("vip", &jwt), ("once", &other)] {
        Protocol::RtmpPlay.attempt(&addresses(edge), app, "a", Some(token)).unwrap();
    }

    proxy.set_link(LinkState::Down);
    let unreachable = "could not read the apps from the registry, using the last ones";
    for (name, node) in cluster.nodes() {
        node.daemon.process().wait_line(unreachable).unwrap();
        let at = addresses(node);
        for protocol in Protocol::without_tls().filter(|protocol| protocol.action() == Grant::Play) {
            let admitted = protocol.attempt(&at, "vip", "a", Some(&jwt));
            admitted.unwrap_or_else(|e| panic!("{name}, {protocol:?}: {e}"));
            protocol.check_refused(&at, ("vip", "a"), None, "token_missing", name);
            protocol.check_refused(&at, ("vip", "a"), Some(&one_time), "token_invalid", name);
        }
        // Each waits for the registry.
        for (protocol, token) in
            [(Protocol::RtmpPlay, &one_time), (Protocol::Whep, &one_time), (Protocol::Hls, &"guess".to_owned())]
        {
            protocol.check_refused(&at, ("once", "a"), Some(token), "registry_unreachable", name);
        }
        let refusal = Protocol::Hls.attempt(&at, "once", "a", Some(&one_time)).unwrap_err();
        assert!(refusal.contains("because the registry is unreachable; try again."), "{refusal}");
    }

    // An engine that starts now decides by the copy in its data folder.
    let (seen, endpoints) = (edge.daemon.process().line_count(), edge.daemon.wait_endpoints(None).unwrap());
    kill(Pid::from_raw(endpoints.pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    edge.daemon.wait_endpoints(Some(endpoints.pid)).unwrap();
    edge.daemon.process().wait_line_from(seen, unreachable).unwrap();
    let at = addresses(edge);
    Protocol::Hls.check_refused(&at, ("vip", "a"), None, "token_missing", "restarted");
    Protocol::Hls.check_refused(&at, ("vip", "a"), Some("guess"), "token_invalid", "restarted");
    // The token is accepted, whether or not the node finds the stream without the registry.
    if let Err(refusal) = Protocol::Hls.attempt(&at, "vip", "a", Some(&jwt)) {
        assert!(refusal.starts_with("404 ") || refusal.starts_with("503 "), "{refusal}");
        assert!(!refusal.contains("policies_unavailable"), "{refusal}");
    }

    // The refused token has not been used up.
    proxy.set_link(LinkState::Open);
    wait::until("the one-time token to be accepted", || {
        Protocol::Hls.attempt(&addresses(edge), "once", "a", Some(&one_time)).ok()
    })
    .unwrap();
    Protocol::Hls.check_refused(&addresses(edge), ("once", "a"), Some(&one_time), "token_used", "again");
    for (name, node) in cluster.nodes() {
        let lines = node.daemon.process().lines();
        let is_fault = |line: &&String| {
            line.contains("panicked at") || [&jwt, &one_time].iter().any(|t| line.contains(t.as_str()))
        };
        assert_eq!(lines.iter().find(is_fault), None, "{name}");
    }
    runtime.shutdown_background();
}
