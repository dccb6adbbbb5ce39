//! Every promise about cost, measured and set against its figure.

use super::fanout::{self, Protocol};
use super::{Setup, in_turns, ingest, join, side_by_side};
use crate::report::{Case, Report, align};

/// Runs every case; counts are divided by `shrink` for a quick look.
pub(crate) async fn run(setup: &Setup, shrink: usize, report: &mut Report) {
    let fans = [
        (Protocol::Whep, 200),
        (Protocol::Rtmp, 200),
        (Protocol::Rtmp, 50),
        (Protocol::Hls, 1_000),
        (Protocol::Llhls, 50),
    ];
    for (protocol, count) in fans {
        let subjects = setup.subjects(protocol.has_peer(), protocol.floor().is_some());
        in_turns(setup.rounds, &subjects, report, async |subject, round| {
            fanout::run(setup, protocol, subject, count / shrink, round).await
        })
        .await;
    }
    let subjects = setup.subjects(true, false);
    side_by_side(setup.rounds, &subjects, report, async |subject, round| {
        ingest::run(setup, subject, 50 / shrink, round).await
    })
    .await;
    for protocol in [Protocol::Rtmp, Protocol::Whep] {
        in_turns(1, &setup.subjects(protocol.has_peer(), false), report, async |subject, round| {
            join::run(setup, protocol, subject, JOINS, round).await
        })
        .await;
    }
}

/// One promise: a figure, or a ratio of two figures, and what it may be at most.
struct Promise {
    what: &'static str,
    case: &'static str,
    count: usize,
    figure: fn(&Case) -> Option<f64>,
    /// Divide by the same figure of this one.
    by: Option<&'static str>,
    at_most: f64,
    unit: &'static str,
}

/// The promises as a table: figure, target, kept or not.
pub(crate) fn promises(report: &Report, shrink: usize) -> String {
    let late = |c: &Case| c.latency_ms.map(|l| l.p50);
    let joined = |c: &Case| c.join_ms.map(|l| l.p50);
    let kb = |c: &Case| c.kb_each;
    let (floor, nginx) = (Some("floor"), Some("nginx-rtmp"));
    let rows = [
        (
            "WHEP 200 viewers, CPU a packet",
            "whep",
            200,
            Case::cpu_per_million_packets as fn(&Case) -> _,
            floor,
            1.5,
            "x floor",
        ),
        ("WHEP 200 viewers, memory each", "whep", 200, kb, None, 32.0, "KB"),
        ("RTMP 200 players, CPU a byte", "rtmp", 200, Case::cpu_per_gb, floor, 1.6, "x floor"),
        ("RTMP 200 players, CPU a byte", "rtmp", 200, Case::cpu_per_gb, nginx, 0.6, "x nginx-rtmp"),
        ("RTMP 200 players, memory each", "rtmp", 200, kb, None, 24.0, "KB"),
        ("HLS 1000 viewers, CPU each", "hls", 1_000, Case::cpu_ms_each, nginx, 1.0, "x nginx"),
        ("Ingest of 50 publishers, CPU each", "ingest", 50, Case::cpu_ms_each, nginx, 1.15, "x nginx-rtmp"),
        ("RTMP 50 players, latency p50", "rtmp", 50, late, nginx, 0.9, "x nginx-rtmp"),
        ("RTMP join p50", "join-rtmp", JOINS, joined, None, 20.0, "ms"),
        ("WHEP POST to first packet p50", "join-whep", JOINS, joined, None, 20.0, "ms"),
        (
            "LL-HLS, age of a part's first picture p99",
            "llhls",
            50,
            |c| c.latency_ms.map(|l| l.p99),
            None,
            2_000.0,
            "ms",
        ),
    ];
    let mut table = vec![["promise", "measured", "at most", "kept"].map(str::to_owned)];
    for (what, case, count, figure, by, at_most, unit) in rows {
        let promise = Promise { what, case, count, figure, by, at_most, unit };
        let measured = promise.measure(report, shrink);
        table.push([
            promise.what.to_owned(),
            measured.map_or("not measured".to_owned(), |m| format!("{m:.2} {}", promise.unit)),
            format!("{} {}", promise.at_most, promise.unit),
            measured.map_or("-", |m| if m <= promise.at_most { "yes" } else { "FALLS SHORT" }).to_owned(),
        ]);
    }
    align(&table)
}

impl Promise {
    fn measure(&self, report: &Report, shrink: usize) -> Option<f64> {
        let count = if self.case.starts_with("join") { self.count } else { self.count / shrink };
        let median = |server| report.spread(self.case, server, count, self.figure).map(|s| s.median);
        let ours = median("headwater")?;
        self.by.map_or(Some(ours), |other| Some(ours / median(other)?))
    }
}

/// Joins of the joining cases.
pub(crate) const JOINS: usize = 30;
