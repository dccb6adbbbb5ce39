//! Results of a run: one [`Case`] per server and round, as JSON and as a table of medians.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::tally::Percentiles;

/// One measurement of one server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Case {
    /// `rtmp`, `rtmp-unmerged`, `whep`, `hls`, `llhls`, `ingest`, `join-rtmp`, `join-whep`.
    pub(crate) case: &'static str,
    /// `headwater`, `nginx-rtmp` or `floor`.
    pub(crate) server: &'static str,
    /// Counted from 1.
    pub(crate) round: u32,
    /// Number of viewers, or of publishers in the ingest case.
    pub(crate) count: usize,
    /// Length of the measurement window, in seconds.
    pub(crate) seconds: f64,
    /// User and system time of the server in the window, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Bytes delivered in the window.
    pub(crate) bytes: u64,
    /// RTP packets, RTMP messages or HTTP responses in the window.
    pub(crate) packets: u64,
    /// Video frames received in the window.
    pub(crate) frames: u64,
    /// Lost frames (RTMP) or packets (RTP), or responses other than 200 (HLS), in the window.
    pub(crate) lost: u64,
    /// Viewers that ended before they were stopped, since the start.
    pub(crate) failed: u64,
    /// Resident memory per viewer or stream, in KiB, above that with one viewer or no stream.
    pub(crate) kb_each: Option<f64>,
    /// Resident memory at the end, in KiB.
    pub(crate) rss_kb: Option<u64>,
    pub(crate) latency_ms: Option<Percentiles>,
    pub(crate) join_ms: Option<Percentiles>,
}

impl Case {
    /// CPU-seconds per 10^9 bytes delivered.
    pub(crate) fn cpu_per_gb(&self) -> Option<f64> {
        (self.bytes > 0 && self.cpu_seconds > 0.0).then(|| self.cpu_seconds / (self.bytes as f64 / 1e9))
    }

    /// CPU-seconds per million packets, which is microseconds per packet.
    pub(crate) fn cpu_per_million_packets(&self) -> Option<f64> {
        (self.packets > 0 && self.cpu_seconds > 0.0).then(|| self.cpu_seconds / (self.packets as f64 / 1e6))
    }

    /// CPU milliseconds per second and viewer or stream.
    pub(crate) fn cpu_ms_each(&self) -> Option<f64> {
        (self.cpu_seconds > 0.0).then(|| self.cpu_seconds * 1e3 / self.seconds / self.count as f64)
    }
}

/// All measurements of a run.
#[derive(Debug, Default)]
pub(crate) struct Report(pub(crate) Vec<Case>);

/// Median, minimum and maximum over the rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median >= 100.0 { 0 } else { 2 };
        write!(f, "{:.digits$}", self.median)?;
        if self.max > self.min { write!(f, " ({:.digits$}-{:.digits$})", self.min, self.max) } else { Ok(()) }
    }
}

impl Report {
    /// The spread of `figure` over the rounds of a case; `None` if no round has it.
    pub(crate) fn spread(
        &self,
        case: &str,
        server: &str,
        count: usize,
        figure: impl Fn(&Case) -> Option<f64>,
    ) -> Option<Spread> {
        let cases = self.0.iter().filter(|c| (c.case, c.server, c.count) == (case, server, count));
        let mut values: Vec<f64> = cases.filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            n if n % 2 == 0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Spread { median, min: values[0], max: values[values.len() - 1] })
    }

    /// Medians of every case and server, one line each.
    pub(crate) fn table(&self) -> String {
        let mut keys = BTreeMap::new();
        for (order, case) in self.0.iter().enumerate() {
            keys.entry((case.case, case.count, case.server)).or_insert(order);
        }
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        for (case, count, server) in keys.into_keys() {
            let cell = |figure: fn(&Case) -> Option<f64>| {
                self.spread(case, server, count, figure).map_or("-".to_owned(), |s| s.to_string())
            };
            rows.push([
                case.to_owned(),
                count.to_string(),
                server.to_owned(),
                cell(Case::cpu_per_gb),
                cell(Case::cpu_per_million_packets),
                cell(Case::cpu_ms_each),
                cell(|c| c.kb_each),
                cell(|c| c.latency_ms.map(|l| l.p50)),
                cell(|c| c.latency_ms.map(|l| l.p99)),
                cell(|c| c.join_ms.map(|l| l.p50)),
                cell(|c| Some((c.lost + c.failed) as f64)),
                cell(|c| (c.frames > 0).then(|| c.frames as f64 / c.seconds / c.count as f64)),
            ]);
        }
        align(&rows)
    }

    /// Writes all cases as a JSON array.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.0.iter().map(CaseRecord::of).collect::<Vec<_>>())?;
        std::fs::write(file, text + "\n").with_context(|| format!("could not write {}", file.display()))
    }
}

/// A case in the JSON file, with the quotients, so that all readers divide alike.
#[derive(Debug, Serialize)]
struct CaseRecord<'a> {
    #[serde(flatten)]
    case: &'a Case,
    /// `null` if no bytes were delivered or no CPU time was measured.
    cpu_seconds_per_gb: Option<f64>,
    /// `null` if no packets were delivered or no CPU time was measured.
    cpu_seconds_per_million_packets: Option<f64>,
}

impl<'a> CaseRecord<'a> {
    fn of(case: &'a Case) -> Self {
        Self {
            case,
            cpu_seconds_per_gb: case.cpu_per_gb(),
            cpu_seconds_per_million_packets: case.cpu_per_million_packets(),
        }
    }
}

const HEADINGS: [&str; 12] = [
    "case",
    "count",
    "server",
    "CPU s/GB",
    "CPU us/packet",
    "CPU ms/s each",
    "KB each",
    "latency p50 ms",
    "latency p99 ms",
    "join p50 ms",
    "lost",
    "frames/s",
];

/// Formats a Markdown table with aligned columns; the first row is the heading.
pub(crate) fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells = std::array::from_fn::<_, N, _>(|i| format!("{:<width$}", row[i], width = widths[i]));
        out += &format!("| {} |\n", cells.join(" | "));
        if n == 0 {
            out += &format!("|{}|\n", widths.map(|w| "-".repeat(w + 2)).join("|"));
        }
    }
    out
}

/// Writes to standard output. Errors, such as a closed pipe, are ignored.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes progress to standard error. Errors are ignored.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
impl Case {
    /// A case with five viewers, one second and all counters zero.
    pub(crate) fn empty(case: &'static str, server: &'static str) -> Self {
        Self {
            case,
            server,
            round: 1,
            count: 5,
            seconds: 1.0,
            cpu_seconds: 0.0,
            bytes: 0,
            packets: 0,
            frames: 0,
            lost: 0,
            failed: 0,
            kb_each: None,
            rss_kb: None,
            latency_ms: None,
            join_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotient_with_a_zero_divisor_is_null_in_json() {
        let case = Case { cpu_seconds: 3.0, bytes: 2_000_000_000, ..Case::empty("ingest", "headwater") };
        let json = serde_json::to_value(CaseRecord::of(&case)).unwrap();
        assert_eq!(json["cpu_seconds_per_gb"], 1.5);
        assert!(json.as_object().unwrap().contains_key("cpu_seconds_per_million_packets"), "{json}");
        assert!(json["cpu_seconds_per_million_packets"].is_null(), "{json}");
        assert_eq!((&json["case"], &json["bytes"]), (&"ingest".into(), &2_000_000_000_u64.into()));
    }
}
