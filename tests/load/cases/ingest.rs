//! Many publishers without viewers.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{SETTLE_PERIOD, Setup, Subject, measure};
use crate::report::Case;
use crate::rtmp::publisher::Publishers;
use crate::server::Server;
use crate::source::Source;
use crate::tally::Tally;

/// Measures `count` publishers of one stream each.
///
/// # Errors
/// If the server did not start, or a publisher was refused or disconnected.
pub(crate) async fn run(setup: &Setup, subject: Subject, count: usize, round: u32) -> Result<Case> {
    let Subject::Server(kind) = subject else { bail!("the ingest case has no floor") };
    let server = Server::start(kind, &setup.engine, true, setup.attach).await?;
    let rss_before = server.processes.rss_kb()?;
    let keys = (0..count).map(|n| format!("load-{n}")).collect();
    let mut publishers = Publishers::start(server.publish, "live", keys, Arc::clone(&setup.source), 1).await?;
    tokio::time::sleep(SETTLE_PERIOD).await;
    let window = measure(&server.processes, &Tally::default(), setup.window).await?;
    publishers.check()?;
    let rss_kb = server.processes.rss_kb()?;
    Ok(Case {
        case: "ingest",
        server: kind.name(),
        round,
        count,
        seconds: window.seconds,
        cpu_seconds: window.cpu_seconds,
        bytes: (bytes_per_second(&setup.source) * window.seconds * count as f64) as u64,
        packets: 0,
        frames: 0,
        lost: 0,
        failed: 0,
        kb_each: Some(rss_kb.saturating_sub(rss_before) as f64 / count as f64),
        rss_kb: Some(rss_kb),
        latency_ms: None,
        join_ms: None,
    })
}

fn bytes_per_second(source: &Source) -> f64 {
    let bytes: usize = source.tags.iter().map(|i| i.body.len()).sum();
    bytes as f64 * 1e3 / f64::from(crate::source::PASS_MS)
}
