//! Receives the health reports that the daemon writes to the engine's standard input, one JSON
//! object per line. `/readyz`, admission and the load meter read the latest report.
//!
//! An engine without a daemon has no report and no checks.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_api::control::{NodeHealth, REPORT_INTERVAL_SECS};
use tokio::time::Instant;

use crate::runtime::wall_clock::WallClock;

/// Holds the latest health report; clones share it.
#[derive(Debug, Clone, Default)]
pub struct NodeHealthReceiver {
    last_report: Arc<Mutex<Option<Report>>>,
    wall_clock: WallClock,
}

#[derive(Debug)]
struct Report {
    /// `None` until the first report.
    health: Option<NodeHealth>,
    received_at: Instant,
}

impl NodeHealthReceiver {
    /// For an engine without a daemon: there is never a report.
    pub fn disconnected() -> Self {
        Self::default()
    }

    /// For an engine under a daemon, which must send its first report within `REPORT_TIMEOUT`.
    /// Reports correct `wall_clock` by the offset that the daemon measures.
    pub fn connected(wall: &WallClock) -> Self {
        let report = Arc::new(Mutex::new(Some(Report { health: None, received_at: Instant::now() })));
        Self { last_report: report, wall_clock: wall.clone() }
    }

    /// Reads one JSON report per line until end of file. Blocking.
    pub fn read_reports(&self, input: impl Read) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                _ => return,
            }
            match serde_json::from_slice(&line) {
                Ok(health) => self.apply(health),
                Err(err) => log::warn!(err:%; "could not parse a health report of the daemon"),
            }
        }
    }

    /// Stores one report and applies its clock offset.
    pub fn apply(&self, health: NodeHealth) {
        self.wall_clock.correct(health.clock_ahead_ms);
        *self.last_report.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Report { health: Some(health), received_at: Instant::now() });
    }

    /// The latest report; `None` before the first one or without a daemon.
    pub fn latest(&self) -> Option<NodeHealth> {
        self.last_report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .and_then(|report| report.health.clone())
    }

    /// The result of each check, by name, with the reason of a failure. Includes the check
    /// `daemon`, which fails without a recent report. Empty without a daemon.
    pub fn checks(&self) -> BTreeMap<String, Result<(), String>> {
        let report = self.last_report.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(report) = report.as_ref() else { return BTreeMap::new() };
        let silent = report.received_at.elapsed();
        let daemon = match (&report.health, silent > REPORT_TIMEOUT) {
            (None, _) => Err("has sent no report yet".to_owned()),
            (Some(_), true) => Err(format!("has sent no report for {} s", silent.as_secs())),
            (Some(_), false) => Ok(()),
        };
        let checks_of_report = report.health.iter().flat_map(|health| &health.checks);
        let checks_of_report = checks_of_report.map(|(name, wrong)| (name.clone(), wrong.clone().map_or(Ok(()), Err)));
        checks_of_report.chain([("daemon".to_owned(), daemon)]).collect()
    }
}

const MAX_LINE_BYTES: u64 = 64 << 10;
/// A report is out of date after this time. Four intervals tolerate two lost reports.
const REPORT_TIMEOUT: Duration = Duration::from_secs(4 * REPORT_INTERVAL_SECS);

#[cfg(test)]
mod tests {
    use headwater_api::StreamName;

    use super::*;
    use crate::hub::{Hub, Limits};

    #[tokio::test(start_paused = true)]
    async fn health_report_expires_without_a_new_one() {
        assert!(NodeHealthReceiver::disconnected().checks().is_empty());
        let receiver = NodeHealthReceiver::connected(&WallClock::default());
        assert_eq!(receiver.checks()["daemon"], Err("has sent no report yet".to_owned()));
        let text = b"{\"checks\":{\"lease\":\"ended\",\"clock\":null}}\nnonsense\n";
        receiver.read_reports(&text[..]);
        let checks = receiver.checks();
        assert_eq!(
            (&checks["daemon"], &checks["clock"], &checks["lease"]),
            (&Ok(()), &Ok(()), &Err("ended".to_owned()))
        );
        tokio::time::advance(REPORT_TIMEOUT).await;
        assert_eq!(receiver.checks()["daemon"], Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(receiver.checks()["daemon"], Err("has sent no report for 9 s".to_owned()));
        receiver.apply(NodeHealth::default());
        assert_eq!(receiver.checks()["daemon"], Ok(()));
    }

    #[tokio::test]
    async fn stream_start_times_use_the_clock_corrected_by_the_daemon() {
        let hub = Hub::new(Limits::default());
        let begun_ms =
            |id: &str| hub.publish(&StreamName::new("live", id).unwrap(), "test").unwrap().stream().started_at_ms();
        let receiver = NodeHealthReceiver::connected(hub.wall_clock());
        let hour_ms = 3_600_000;
        let own_ms = begun_ms("a");
        receiver.apply(NodeHealth { clock_ahead_ms: hour_ms, ..NodeHealth::default() });
        let corrected_ms = begun_ms("b") + hour_ms.unsigned_abs();
        assert!(corrected_ms.abs_diff(own_ms) < hour_ms.unsigned_abs() / 2, "{corrected_ms} {own_ms}");
        receiver.apply(NodeHealth::default());
        assert!(begun_ms("c") >= own_ms);
    }
}
