//! The measurements. Each case starts its server, its stream and its viewers, and stops them again.

pub(crate) mod all;
pub(crate) mod curve;
pub(crate) mod fanout;
pub(crate) mod ingest;
pub(crate) mod join;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::process::Processes;
use crate::report::{Case, Report, progress};
use crate::server::{self, AttachArgs, ServerKind};
use crate::source::Source;
use crate::tally::{Counts, Tally};

/// Settings that all cases of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) engine: PathBuf,
    pub(crate) attach: AttachArgs,
    pub(crate) source: Arc<Source>,
    /// Length of the measurement window.
    pub(crate) window: Duration,
    pub(crate) rounds: u32,
    pub(crate) peer: bool,
    pub(crate) floor: bool,
}

/// What is measured in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Server(ServerKind),
    Floor,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server(kind) => kind.name(),
            Self::Floor => "floor",
        }
    }
}

impl Setup {
    /// The engine, then nginx and the floor if they are requested and available.
    pub(crate) fn subjects(&self, peer: bool, floor: bool) -> Vec<Subject> {
        let mut subjects = vec![Subject::Server(ServerKind::Engine)];
        if self.peer && peer {
            if server::nginx_is_installed() {
                subjects.push(Subject::Server(ServerKind::Nginx));
            } else {
                progress("nginx or its RTMP module is not installed: measuring without it");
            }
        }
        if self.floor && floor {
            subjects.push(Subject::Floor);
        }
        subjects
    }
}

/// Runs `one` for every subject in turns, `rounds` times. A failure is reported and skipped.
pub(crate) async fn in_turns(
    rounds: u32,
    subjects: &[Subject],
    report: &mut Report,
    mut one: impl AsyncFnMut(Subject, u32) -> Result<Case>,
) {
    for round in 1..=rounds {
        for subject in subjects {
            record(one(*subject, round).await, *subject, round, report);
        }
    }
}

/// Like [`in_turns`], with two subjects at the same time, so that other load on the
/// machine affects both alike.
pub(crate) async fn side_by_side(
    rounds: u32,
    subjects: &[Subject],
    report: &mut Report,
    one: impl AsyncFn(Subject, u32) -> Result<Case>,
) {
    for round in 1..=rounds {
        for pair in subjects.chunks(2) {
            let first = one(pair[0], round);
            let Some(second) = pair.get(1) else {
                record(first.await, pair[0], round, report);
                continue;
            };
            let (first_case, second_case) = tokio::join!(first, one(*second, round));
            record(first_case, pair[0], round, report);
            record(second_case, *second, round, report);
        }
    }
}

fn record(result: Result<Case>, subject: Subject, round: u32, report: &mut Report) {
    match result {
        Ok(case) => {
            let cost = case.cpu_ms_each().map_or(String::new(), |c| format!(", {c:.3} CPU ms/s each"));
            progress(&format!("{} x {} on {}, round {round}{cost}", case.case, case.count, case.server));
            report.0.push(case);
        }
        Err(e) => progress(&format!("FAILED on {}, round {round}: {e:#}", subject.name())),
    }
}

/// A measurement between two points in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) counts: Counts,
}

/// Measures a server and its viewers for this duration.
pub(crate) async fn measure(processes: &Processes, tally: &Tally, length: Duration) -> Result<Window> {
    let (cpu, counts, start) = (processes.cpu()?, tally.counts(), Instant::now());
    tally.set_sampling(true);
    tokio::time::sleep(length).await;
    tally.set_sampling(false);
    let (seconds, now, used) = (start.elapsed().as_secs_f64(), tally.counts(), processes.cpu()? - cpu);
    let counts = Counts {
        bytes: now.bytes - counts.bytes,
        packets: now.packets - counts.packets,
        frames: now.frames - counts.frames,
        lost: now.lost - counts.lost,
        failed: now.failed,
    };
    Ok(Window { seconds, cpu_seconds: used.as_secs_f64(), counts })
}

/// Time for a server and its viewers to settle before a measurement.
pub(crate) const SETTLE_PERIOD: Duration = Duration::from_secs(2);
