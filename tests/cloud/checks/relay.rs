//! Relay links between nodes: half open, unauthenticated, and between node groups.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::{http, wait};

use super::CheckContext;
use super::steps::{ensure_below, whep_pauses};
use crate::node::{Node, Role};

/// The link between an edge and the origin silently drops all packets, and is restored.
pub(super) fn half_open(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, first) = ctx.publish("cable")?;
    let edges = ctx.edges();
    let (partitioned, others) = edges.split_first().context("no edges")?;
    let mut unaffected = ctx.start_whep_viewers(others, "cable")?;
    let mut whep = ctx.start_whep_viewers(&[*partitioned], "cable")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().chain(&mut unaffected).for_each(|(_, viewer)| viewer.reset_pauses());
    let origin = ctx.cluster.nodes[first].host().address();
    let lines = ctx.cluster.nodes[*partitioned].daemon()?.line_count();
    ctx.cluster.nodes[*partitioned].host().partition_from(origin)?;
    let started = Instant::now();
    ctx.cluster.nodes[*partitioned].daemon()?.wait_line_from(lines, "relay source lost")?;
    let detected = started.elapsed();
    ensure!(detected < Duration::from_secs(6), "detected after {detected:?}");
    wait::until("four more seconds", || (started.elapsed() > Duration::from_secs(8)).then_some(()))?;
    ctx.cluster.nodes[*partitioned].host().restore_network()?;
    let mended = Instant::now();
    whep_pauses(&whep, 50)?;
    let back = mended.elapsed();
    let others = ensure_below("others' pauses", &whep_pauses(&unaffected, 1)?, Duration::from_secs(1))?;
    Ok(format!(
        "detected after {:.1} s; restored 8 s after the cut: same viewers continue within {:.1} s; {others}",
        detected.as_secs_f64(),
        back.as_secs_f64()
    ))
}

/// Connections that send garbage or nothing.
pub(super) fn unauthenticated_peers(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = ctx.publish("relay-peers")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "relay-peers")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    let origin = &ctx.cluster.nodes[owner];
    let before = rejected_peers(origin)?;
    let mut silent = Vec::new();
    for n in 0_u8..100 {
        let mut socket = TcpStream::connect_timeout(&origin.relay(), Duration::from_secs(2))?;
        if n % 2 == 0 {
            // The server may close the connection before everything is written.
            let _ = socket.write_all(&vec![n; 4_096]);
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            ensure!(answer.len() < 256, "{} bytes for garbage", answer.len());
        } else {
            silent.push(socket);
        }
    }
    let counted = wait::until("the rejected peers to be counted", || {
        rejected_peers(origin).ok().filter(|n| *n >= before + 100.0)
    })?;
    let pauses = ensure_below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!("{} rejected, {pauses}", counted - before))
}

/// A node with a wrong cluster secret and an otherwise correct configuration.
pub(super) fn wrong_secret(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = ctx.publish("secret")?;
    let edges = ctx.edges();
    let mut whep = ctx.start_whep_viewers(&edges, "secret")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.reset_pauses());
    let before = rejected_peers(&ctx.cluster.nodes[owner])?;
    let file = ctx.cluster.folder().join("wrong-secret.txt");
    std::fs::write(&file, "not the secret of the cluster\n")?;
    let settings = format!("[relay]\nsecret_file = {file:?}\n");
    let at = ctx.cluster.add_node_with_settings(Role::Edge, "wrong-secret", 41, &[], &settings)?;
    let result = (|| {
        let node = &ctx.cluster.nodes[at];
        node.wait_ready()?;
        let answer = http::get(node.http(), "/live/streams/secret/playlist.m3u8")?;
        // The origin hangs up before it answers: the node is unreachable for this one.
        ensure!(answer.status == 503, "{} without the secret", answer.status);
        let counted = rejected_peers(&ctx.cluster.nodes[owner])? - before;
        ensure!(counted >= 1.0, "the origin did not reject the peer");
        let pauses = ensure_below("others' pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
        Ok(format!("503 there, rejected {counted} times, {pauses}"))
    })();
    ctx.cluster.remove_last_node();
    result
}

fn rejected_peers(node: &Node) -> anyhow::Result<f64> {
    node.metric("headwater_relay_unauthenticated_total")
}

/// Edges of another node group relay a stream from the origin once, and then from each other.
pub(super) fn other_group(ctx: &mut CheckContext<'_>) -> anyhow::Result<String> {
    let other_group_tags = [("headwater:node-group", "far")];
    let mut nodes = Vec::new();
    for n in 1..=2_u8 {
        nodes.push(ctx.cluster.add_node(Role::Edge, &format!("far-{n}"), 50 + n, &other_group_tags)?);
    }
    for at in &nodes {
        ctx.cluster.nodes[*at].wait_ready()?;
    }
    let (_publisher, owner) = ctx.publish("far")?;
    // Edges read the node groups from the registry periodically.
    let whep = ctx.start_whep_viewers(&nodes, "far")?;
    whep_pauses(&whep, 50)?;
    let links = |at: usize| ctx.cluster.nodes[at].metric("headwater_relay_edges");
    let (at_origin, at_far) = (links(owner)?, links(nodes[0])? + links(nodes[1])?);
    ensure!((at_origin, at_far) == (1.0, 1.0), "{at_origin} links from the origin, {at_far} between the edges");
    let same = wait::until("the same bytes from both", || {
        let text = |at: usize| {
            http::get(ctx.cluster.nodes[at].http(), "/live/streams/far/playlist.m3u8").ok().map(|a| a.text())
        };
        let both = (text(nodes[0])?, text(nodes[1])?);
        (both.0.contains("#EXT-X-PART") && both.0 == both.1).then_some(())
    });
    same?;
    // The other checks do not expect these nodes.
    nodes.iter().for_each(|_| ctx.cluster.remove_last_node());
    Ok("1 link between the groups, 1 within the group, same playlist on both edges".to_owned())
}
