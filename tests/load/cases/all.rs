//! Every promise about cost, measured and compared with its figure.

use super::fanout::{self, Protocol};
use super::{Setup, Subject, in_turns, ingest, join, side_by_side};
use crate::report::{Case, Report, align, progress};
use crate::server::ServerKind;

use Baseline::{Absolute, DifferenceTo, RatioTo};

/// Runs every case of one node; counts are divided by `shrink`.
pub(crate) async fn run(setup: &Setup, shrink: usize, report: &mut Report) {
    let cases = [
        (Protocol::Whep, 200),
        (Protocol::Rtmp, 200),
        (Protocol::RtmpUnmerged, 200),
        (Protocol::Rtmp, 50),
        (Protocol::Hls, 1_000),
        (Protocol::Llhls, 50),
    ];
    for (protocol, count) in cases {
        if protocol == Protocol::RtmpUnmerged && setup.attach.is_set() {
            progress("the settings of a running engine cannot be changed: measuring without rtmp-unmerged");
            continue;
        }
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
            join::run(setup, protocol, subject, joins(shrink), round).await
        })
        .await;
    }
}

/// Runs every case of an edge next to the same case of a node on which the streams are published.
pub(crate) async fn edge(setup: &Setup, viewers: usize, streams: usize, report: &mut Report) {
    let subjects = [Subject::Server(ServerKind::Engine), Subject::Server(ServerKind::Edge)];
    for protocol in [Protocol::Rtmp, Protocol::Whep] {
        in_turns(setup.rounds, &subjects, report, async |subject, round| {
            fanout::run(setup, protocol, subject, viewers, round).await
        })
        .await;
        in_turns(setup.rounds, &subjects, report, async |subject, round| {
            join::cold(setup, protocol, subject, streams, round).await
        })
        .await;
    }
}

/// Runs a case on an engine whose viewers need a token next to one that is open.
pub(crate) async fn protected(
    setup: &Setup,
    report: &mut Report,
    one: impl AsyncFnMut(Subject, u32) -> anyhow::Result<Case>,
) {
    let subjects = [Subject::Server(ServerKind::Engine), Subject::Server(ServerKind::Protected)];
    in_turns(setup.rounds, &subjects, report, one).await;
}

/// A promise: the limit of a server's figure, absolute or relative to another server.
#[derive(Debug)]
pub(crate) struct Promise {
    server: &'static str,
    row: PromiseRow,
}

/// Description, case, number of viewers or joins, figure, baseline, limit, unit.
type PromiseRow = (&'static str, &'static str, usize, Figure, Baseline, f64, &'static str);

type Figure = fn(&Case) -> Option<f64>;

/// What a figure is compared with.
#[derive(Debug, Clone, Copy)]
enum Baseline {
    Absolute,
    /// Quotient of the figure and that of this server.
    RatioTo(&'static str),
    /// Difference of the figure and that of this server.
    DifferenceTo(&'static str),
}

/// The promises that [`run`] measures.
pub(crate) fn promises(shrink: usize) -> Vec<Promise> {
    let (floor, nginx) = (RatioTo("floor"), RatioTo("nginx-rtmp"));
    let (n200, n50, n1000) = (200 / shrink, 50 / shrink, 1_000 / shrink);
    let mut promises = promises_of(
        "headwater",
        [
            ("WHEP 200 viewers, CPU per packet", "whep", n200, Case::cpu_per_million_packets, floor, 1.5, "x floor"),
            ("WHEP 200 viewers, memory each", "whep", n200, kb_each, Absolute, 32.0, "KB"),
            ("HLS 1000 viewers, CPU each", "hls", n1000, Case::cpu_ms_each, nginx, 1.0, "x nginx"),
            ("Ingest of 50 publishers, CPU each", "ingest", n50, Case::cpu_ms_each, nginx, 1.15, "x nginx-rtmp"),
            ("RTMP 50 players, latency p50", "rtmp", n50, latency_p50, nginx, 0.9, "x nginx-rtmp"),
            ("RTMP join p50", "join-rtmp", joins(shrink), join_p50, Absolute, 20.0, "ms"),
            ("WHEP POST to first packet p50", "join-whep", joins(shrink), join_p50, Absolute, 20.0, "ms"),
            ("LL-HLS, age of a part's first frame p99", "llhls", n50, latency_p99, Absolute, 2_000.0, "ms"),
        ],
    );
    promises.extend([true, false].into_iter().flat_map(|merge_audio| rtmp_promises(merge_audio, n200)));
    promises
}

/// The promises of one stream with this number of RTMP players; they hold for 200.
pub(crate) fn rtmp_promises(merge_audio: bool, players: usize) -> Vec<Promise> {
    let (floor, nginx, per_gb): (_, _, Figure) = (RatioTo("floor"), RatioTo("nginx-rtmp"), Case::cpu_per_gb);
    if !merge_audio {
        let case = "rtmp-unmerged";
        let rows = [
            ("RTMP players, audio not merged, CPU per byte", case, players, per_gb, floor, 1.4, "x floor"),
            ("RTMP players, audio not merged, CPU per byte", case, players, per_gb, nginx, 1.0, "x nginx-rtmp"),
        ];
        return promises_of("headwater", rows);
    }
    let rows = [
        ("RTMP players, CPU per byte", "rtmp", players, per_gb, floor, 1.6, "x floor"),
        ("RTMP players, CPU per byte", "rtmp", players, per_gb, nginx, 0.6, "x nginx-rtmp"),
        ("RTMP players, memory each", "rtmp", players, kb_each, Absolute, 24.0, "KB"),
    ];
    promises_of("headwater", rows)
}

/// The promises that [`edge`] measures.
pub(crate) fn edge_promises(viewers: usize, streams: usize) -> Vec<Promise> {
    let (ratio, difference) = (RatioTo("headwater"), DifferenceTo("headwater"));
    let packet: Figure = Case::cpu_per_million_packets;
    promises_of(
        "edge",
        [
            ("Edge hop, WHEP, latency p99 added", "whep", viewers, latency_p99, difference, 5.0, "ms"),
            ("Edge hop, RTMP, latency p99 added", "rtmp", viewers, latency_p99, difference, 5.0, "ms"),
            ("Edge hop, WHEP, CPU per packet", "whep", viewers, packet, ratio, 1.1, "x a local stream"),
            ("Edge hop, RTMP, CPU per message", "rtmp", viewers, packet, ratio, 1.1, "x a local stream"),
            ("Cold stream, WHEP POST to first packet p50", "cold-whep", streams, join_p50, Absolute, 60.0, "ms"),
            ("Cold stream, RTMP join p50", "cold-rtmp", streams, join_p50, Absolute, 60.0, "ms"),
        ],
    )
}

/// The promise of HLS that [`protected`] measures, with this number of viewers.
pub(crate) fn protected_hls_promise(viewers: usize) -> Vec<Promise> {
    let (ratio, cpu) = (RatioTo("headwater"), Case::cpu_ms_each);
    promises_of("protected", [("HLS, signed segments, CPU each", "hls", viewers, cpu, ratio, 1.05, "x an open app")])
}

/// The promise of WHEP that [`protected`] measures, with this number of joins.
pub(crate) fn protected_whep_promise(joins: usize) -> Vec<Promise> {
    let difference = DifferenceTo("headwater");
    promises_of("protected", [("WHEP, token, join p50 added", "join-whep", joins, join_p50, difference, 1.0, "ms")])
}

fn promises_of<const N: usize>(server: &'static str, rows: [PromiseRow; N]) -> Vec<Promise> {
    rows.map(|row| Promise { server, row }).into()
}

/// Formats promises as a table: figure, limit, kept or not.
pub(crate) fn table(promises: &[Promise], report: &Report) -> String {
    let mut table = vec![["promise", "measured", "at most", "kept"].map(str::to_owned)];
    for promise in promises {
        let (what, .., at_most, unit) = promise.row;
        let measured = promise.measure(report);
        table.push([
            what.to_owned(),
            measured.map_or("not measured".to_owned(), |m| format!("{m:.2} {unit}")),
            format!("{at_most} {unit}"),
            measured.map_or("-", |m| if m <= at_most { "yes" } else { "FALLS SHORT" }).to_owned(),
        ]);
    }
    align(&table)
}

impl Promise {
    fn measure(&self, report: &Report) -> Option<f64> {
        let (_, case, count, figure, baseline, ..) = self.row;
        let median_of = |server| report.spread(case, server, count, figure).map(|s| s.median);
        let median = median_of(self.server)?;
        match baseline {
            Absolute => Some(median),
            RatioTo(other) => Some(median / median_of(other)?),
            DifferenceTo(other) => Some(median - median_of(other)?),
        }
    }
}

fn kb_each(case: &Case) -> Option<f64> {
    case.kb_each
}

fn latency_p50(case: &Case) -> Option<f64> {
    case.latency_ms.map(|l| l.p50)
}

fn latency_p99(case: &Case) -> Option<f64> {
    case.latency_ms.map(|l| l.p99)
}

fn join_p50(case: &Case) -> Option<f64> {
    case.join_ms.map(|l| l.p50)
}

/// Number of joins; a median needs at least two.
fn joins(shrink: usize) -> usize {
    (JOINS / shrink).max(2)
}

/// Number of joins in the join cases.
pub(crate) const JOINS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Percentiles;

    /// The `kept` column for WHEP on an edge, which adds `added_us` of latency and costs `times` as
    /// much as the other node.
    fn kept_column(added_us: u32, times: f64) -> Vec<String> {
        let case = |server, latency_us, cpu_seconds| Case {
            cpu_seconds,
            packets: 1_000,
            latency_ms: Percentiles::of(vec![latency_us]),
            ..Case::empty("whep", server)
        };
        let report = Report(vec![case("headwater", 3_000, 1.0), case("edge", 3_000 + added_us, times)]);
        let table = table(&edge_promises(5, 2), &report);
        table.lines().skip(2).map(|row| row.rsplit('|').nth(1).unwrap().trim().to_owned()).collect()
    }

    #[test]
    fn edge_is_compared_with_the_node_measured_next_to_it() {
        // There are no figures for RTMP and cold streams.
        assert_eq!(kept_column(4_900, 1.05), ["yes", "-", "yes", "-", "-", "-"]);
        assert_eq!(kept_column(5_100, 1.15), ["FALLS SHORT", "-", "FALLS SHORT", "-", "-", "-"]);
    }

    #[test]
    fn unmerged_players_are_compared_with_the_floor_of_their_own_case() {
        let case = |case, server, cpu_seconds| Case { cpu_seconds, bytes: 1_000, ..Case::empty(case, server) };
        let report = Report(vec![
            case("rtmp", "headwater", 1.0),
            case("rtmp", "floor", 1.0),
            case("rtmp-unmerged", "headwater", 2.6),
            case("rtmp-unmerged", "floor", 2.0),
            case("rtmp-unmerged", "nginx-rtmp", 2.5),
        ]);
        let table = table(&rtmp_promises(false, 5), &report);
        let rows: Vec<Vec<_>> = table.lines().skip(2).map(|row| row.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[0][2..5], ["1.30 x floor", "1.4 x floor", "yes"]);
        assert_eq!(rows[1][2..5], ["1.04 x nginx-rtmp", "1 x nginx-rtmp", "FALLS SHORT"]);
    }
}
