//! Join time: viewers join one after another, while one other viewer plays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::fanout::{JOIN_TIMEOUT, Protocol, STREAM_NAME};
use super::{SETTLE_PERIOD, Setup, Subject};
use crate::report::Case;
use crate::rtmp::player;
use crate::rtmp::publisher::Publishers;
use crate::server::{Server, ServerKind};
use crate::tally::Tally;
use crate::viewers::Viewers;
use crate::whep::Identity;
use crate::whep::viewer::Viewer;

/// Joins `count` times and leaves again.
///
/// RTMP: from TCP connect to the first key frame. WHEP: from POST to the first RTP packet.
///
/// # Errors
/// If the server did not start, or a viewer could not join.
pub(crate) async fn run(setup: &Setup, protocol: Protocol, subject: Subject, count: usize, round: u32) -> Result<Case> {
    let Subject::Server(kind) = subject else { bail!("the join case has no floor") };
    let server = Server::start(kind, &setup.engine, true, setup.attach).await?;
    let source = Arc::clone(&setup.source);
    let _publishers = Publishers::start(server.publish, "live", vec![STREAM_NAME.to_owned()], source, 1).await?;
    let identity = Arc::new(Identity::new()?);
    let whep = |tally: &Arc<Tally>| Viewer {
        server: server.http,
        path: server.whep("live", STREAM_NAME),
        reads_marks: false,
        identity: Arc::clone(&identity),
        tally: Arc::clone(tally),
    };
    let mut background = Viewers::default();
    let (tally, rtmp) = (Arc::clone(&background.tally), server.rtmp);
    match protocol {
        Protocol::Whep => {
            let viewer = whep(&tally);
            background.add(async move { viewer.join().await?.watch().await });
        }
        _ => background.add(async move { player::play(rtmp, "live", STREAM_NAME, tally).await }),
    }
    background.wait_joined(1, JOIN_TIMEOUT).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;

    let tally = Arc::new(Tally::default());
    for n in 0..count {
        if protocol == Protocol::Whep {
            let joined = whep(&tally).join().await.with_context(|| server.log())?;
            joined.leave().await?;
        } else {
            let mut one = Viewers::with_tally(Arc::clone(&tally));
            let shared = Arc::clone(&tally);
            one.add(async move { player::play(rtmp, "live", STREAM_NAME, shared).await });
            one.wait_joined(n + 1, JOIN_TIMEOUT).await?;
        }
        // Not synchronized with frames or key frames.
        tokio::time::sleep(Duration::from_millis(137)).await;
    }
    let name = if protocol == Protocol::Whep { "join-whep" } else { "join-rtmp" };
    Ok(joins(name, kind, round, count, &tally))
}

/// Joins `count` streams without viewers, once each: an edge must first relay each of
/// them from its origin.
///
/// # Errors
/// As [`run`].
pub(crate) async fn cold(
    setup: &Setup,
    protocol: Protocol,
    subject: Subject,
    count: usize,
    round: u32,
) -> Result<Case> {
    let Subject::Server(kind) = subject else { bail!("the join case has no floor") };
    let server = Server::start(kind, &setup.engine, true, setup.attach).await?;
    let keys: Vec<_> = (0..count).map(|n| format!("{STREAM_NAME}{n}")).collect();
    let _publishers = Publishers::start(server.publish, "live", keys.clone(), Arc::clone(&setup.source), 1).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;
    let identity = Arc::new(Identity::new()?);
    let tally = Arc::new(Tally::default());
    for (n, key) in keys.iter().enumerate() {
        if protocol == Protocol::Whep {
            let viewer = Viewer {
                server: server.http,
                path: server.whep("live", key),
                reads_marks: false,
                identity: Arc::clone(&identity),
                tally: Arc::clone(&tally),
            };
            viewer.join().await.with_context(|| server.log())?.leave().await?;
        } else {
            let mut one = Viewers::with_tally(Arc::clone(&tally));
            let (rtmp, key, shared) = (server.rtmp, key.clone(), Arc::clone(&tally));
            one.add(async move { player::play(rtmp, "live", &key, shared).await });
            one.wait_joined(n + 1, JOIN_TIMEOUT).await?;
        }
        // Not synchronized with frames or key frames.
        tokio::time::sleep(Duration::from_millis(137)).await;
    }
    let name = if protocol == Protocol::Whep { "cold-whep" } else { "cold-rtmp" };
    Ok(joins(name, kind, round, count, &tally))
}

/// A case with join times only.
fn joins(case: &'static str, kind: ServerKind, round: u32, count: usize, tally: &Tally) -> Case {
    Case {
        case,
        server: kind.name(),
        round,
        count,
        seconds: 0.0,
        cpu_seconds: 0.0,
        bytes: 0,
        packets: 0,
        frames: 0,
        lost: 0,
        failed: 0,
        kb_each: None,
        rss_kb: None,
        latency_ms: None,
        join_ms: tally.joins(),
    }
}
