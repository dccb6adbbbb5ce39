//! The links between nodes: half open, met by strangers, and from one group of nodes to another.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::{http, wait};

use super::Stage;
use super::watch::{below, whep_pauses};
use crate::node::{Node, Role};

/// The cable between an edge and the origin is cut, without a word to either, and mended.
pub(super) fn half_open(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, first) = stage.publish("cable")?;
    let edges = stage.edges();
    let (cut, others) = edges.split_first().context("no edges")?;
    let mut whole = stage.whep(others, "cable")?;
    let mut whep = stage.whep(&[*cut], "cable")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().chain(&mut whole).for_each(|(_, viewer)| viewer.mark());
    let origin = stage.scene.nodes[first].host().address();
    let lines = stage.scene.nodes[*cut].daemon()?.line_count();
    stage.scene.nodes[*cut].host().cut(origin)?;
    let begun = Instant::now();
    stage.scene.nodes[*cut].daemon()?.nth_line(lines, "relay source lost")?;
    let noticed = begun.elapsed();
    ensure!(noticed < Duration::from_secs(6), "noticed after {noticed:?}");
    wait::until("four more seconds", || (begun.elapsed() > Duration::from_secs(8)).then_some(()))?;
    stage.scene.nodes[*cut].host().heal()?;
    let mended = Instant::now();
    whep_pauses(&whep, 50)?;
    let back = mended.elapsed();
    let others = below("others' pauses", &whep_pauses(&whole, 1)?, Duration::from_secs(1))?;
    Ok(format!(
        "noticed after {:.1} s; 8 s later whole again: same viewers go on within {:.1} s; {others}",
        noticed.as_secs_f64(),
        back.as_secs_f64()
    ))
}

/// Garbage and silence.
pub(super) fn strangers(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = stage.publish("strangers")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "strangers")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    let origin = &stage.scene.nodes[owner];
    let before = strangers_counted(origin)?;
    let mut silent = Vec::new();
    for n in 0_u8..100 {
        let mut socket = TcpStream::connect_timeout(&origin.relay(), Duration::from_secs(2))?;
        if n % 2 == 0 {
            // It may be closed before all of it is written.
            let _ = socket.write_all(&vec![n; 4_096]);
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            ensure!(answer.len() < 256, "{} bytes for garbage", answer.len());
        } else {
            silent.push(socket);
        }
    }
    let counted =
        wait::until("the strangers to be counted", || strangers_counted(origin).ok().filter(|n| *n >= before + 100.0))?;
    let pauses = below("pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
    Ok(format!("{} turned away, {pauses}", counted - before))
}

/// A node that believes in another secret, with everything else right.
pub(super) fn wrong_secret(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let (_publisher, owner) = stage.publish("secret")?;
    let edges = stage.edges();
    let mut whep = stage.whep(&edges, "secret")?;
    whep_pauses(&whep, 25)?;
    whep.iter_mut().for_each(|(_, viewer)| viewer.mark());
    let before = strangers_counted(&stage.scene.nodes[owner])?;
    let file = stage.scene.folder().join("wrong-secret");
    std::fs::write(&file, "another secret than that of the others\n")?;
    let settings = format!("[relay]\nsecret_file = {file:?}\n");
    let at = stage.scene.add_with(Role::Edge, "stranger", 41, &[], &settings)?;
    let result = (|| {
        let node = &stage.scene.nodes[at];
        node.wait_ready()?;
        let answer = http::get(node.http(), "/live/streams/secret/playlist.m3u8")?;
        ensure!(answer.status == 404, "the stream plays without the secret: {}", answer.status);
        let counted = strangers_counted(&stage.scene.nodes[owner])? - before;
        ensure!(counted >= 1.0, "the origin has not noticed");
        let pauses = below("others' pauses", &whep_pauses(&whep, 25)?, Duration::from_secs(1))?;
        Ok(format!("404 there, turned away {counted} times, {pauses}"))
    })();
    stage.scene.remove_last();
    result
}

fn strangers_counted(node: &Node) -> anyhow::Result<f64> {
    node.metric("headwater_relay_strangers_total")
}

/// Edges of another group fetch a stream once, and from each other.
pub(super) fn other_group(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let far = [("headwater:node-group", "far")];
    let mut nodes = Vec::new();
    for n in 1..=2_u8 {
        nodes.push(stage.scene.add(Role::Edge, &format!("far-{n}"), 50 + n, &far)?);
    }
    for at in &nodes {
        stage.scene.nodes[*at].wait_ready()?;
    }
    let (_publisher, owner) = stage.publish("far")?;
    // Who is in which group is read from the registry now and then.
    let whep = stage.whep(&nodes, "far")?;
    whep_pauses(&whep, 50)?;
    let links = |at: usize| stage.scene.nodes[at].metric("headwater_relay_edges");
    let (at_origin, at_far) = (links(owner)?, links(nodes[0])? + links(nodes[1])?);
    ensure!((at_origin, at_far) == (1.0, 1.0), "{at_origin} links from the origin, {at_far} between the edges");
    let same = wait::until("the same bytes from both", || {
        let text = |at: usize| {
            http::get(stage.scene.nodes[at].http(), "/live/streams/far/playlist.m3u8").ok().map(|a| a.text())
        };
        let both = (text(nodes[0])?, text(nodes[1])?);
        (both.0.contains("#EXT-X-PART") && both.0 == both.1).then_some(())
    });
    same?;
    // They leave the others alone from here on.
    nodes.iter().for_each(|_| stage.scene.remove_last());
    Ok("1 link between the groups, 1 within, same playlist on both edges".to_owned())
}
