//! Cost by number of viewers: a CSV file and a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::fanout::{self, Protocol};
use super::{Setup, in_turns};
use crate::plot::{Series, svg};
use crate::report::{Case, Report};

/// Measures every viewer count of `counts` and writes `curve-PROTOCOL.csv` and `.svg` to `folder`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) async fn run(
    setup: &Setup,
    protocol: Protocol,
    counts: &[usize],
    folder: &Path,
    report: &mut Report,
) -> Result<()> {
    let subjects = setup.subjects(protocol.has_peer(), protocol.floor().is_some());
    for count in counts {
        in_turns(setup.rounds, &subjects, report, async |subject, round| {
            fanout::run(setup, protocol, subject, *count, round).await
        })
        .await;
    }
    let name = protocol.name();
    let mut csv = String::from("viewers,server,cpu_seconds_per_second,cpu_ms_per_second_and_viewer,latency_p50_ms\n");
    let mut series = Vec::new();
    for subject in &subjects {
        let mut points = Vec::new();
        for count in counts {
            let spread = |figure: fn(&Case) -> Option<f64>| {
                report.spread(name, subject.name(), *count, figure).map(|s| s.median)
            };
            let Some(each) = spread(Case::cpu_ms_each) else { continue };
            let load = each * *count as f64 / 1e3;
            let latency = spread(|c| c.latency_ms.map(|l| l.p50)).map_or(String::new(), |l| format!("{l:.3}"));
            let _ = writeln!(csv, "{count},{},{load:.5},{each:.5},{latency}", subject.name());
            points.push((*count as f64, load * 100.0));
        }
        series.push(Series { name: subject.name().to_owned(), points });
    }
    let title = format!("{} viewers of one 720p30 stream of 2.65 Mbit/s", name.to_uppercase());
    let chart = svg(&title, "viewers", "CPU of the server, % of one core", &series);
    std::fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    for (extension, text) in [("csv", csv), ("svg", chart)] {
        let file = folder.join(format!("curve-{name}.{extension}"));
        std::fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}
