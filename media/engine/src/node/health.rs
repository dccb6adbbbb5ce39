//! Receives the health reports that the daemon writes to the engine's standard input, one JSON
//! object per line. `/readyz`, admission and the load meter read the latest report.
//!
//! An engine without a daemon has no report and no checks.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_api::standing::{EVERY_SECS, Standing};
use tokio::time::Instant;

use crate::hub::WallClock;

/// Holds the latest health report; clones share it.
#[derive(Debug, Clone, Default)]
pub struct NodeHealthReceiver {
    heard: Arc<Mutex<Option<Heard>>>,
    wall: WallClock,
}

#[derive(Debug)]
struct Heard {
    /// `None` until the first report.
    standing: Option<Standing>,
    at: Instant,
}

impl NodeHealthReceiver {
    /// For an engine without a daemon: there is never a report.
    pub fn by_nobody() -> Self {
        Self::default()
    }

    /// For an engine under a daemon, which must send its first report within `REPORT_TIMEOUT`.
    /// Reports correct `wall_clock` by the offset that the daemon measures.
    pub fn by_a_daemon(wall: &WallClock) -> Self {
        let heard = Arc::new(Mutex::new(Some(Heard { standing: None, at: Instant::now() })));
        Self { heard, wall: wall.clone() }
    }

    /// Reads one JSON report per line until end of file. Blocking.
    pub fn listen(&self, input: impl Read) {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                _ => return,
            }
            match serde_json::from_slice(&line) {
                Ok(standing) => self.hear(standing),
                Err(err) => log::warn!(err:%; "could not parse a health report of the daemon"),
            }
        }
    }

    /// Stores one report and applies its clock offset.
    pub fn hear(&self, standing: Standing) {
        self.wall.correct(standing.clock_ahead_ms);
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Heard { standing: Some(standing), at: Instant::now() });
    }

    /// The latest report; `None` before the first one or without a daemon.
    pub fn last(&self) -> Option<Standing> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|heard| heard.standing.clone())
    }

    /// The result of each check, by name, with the reason of a failure. Includes the check
    /// `daemon`, which fails without a recent report. Empty without a daemon.
    pub fn checks(&self) -> BTreeMap<String, Result<(), String>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(heard) = heard.as_ref() else { return BTreeMap::new() };
        let silent = heard.at.elapsed();
        let daemon = match (&heard.standing, silent > PATIENCE) {
            (None, _) => Err("has sent no report yet".to_owned()),
            (Some(_), true) => Err(format!("has sent no report for {} s", silent.as_secs())),
            (Some(_), false) => Ok(()),
        };
        let said = heard.standing.iter().flat_map(|standing| &standing.checks);
        let said = said.map(|(name, wrong)| (name.clone(), wrong.clone().map_or(Ok(()), Err)));
        said.chain([("daemon".to_owned(), daemon)]).collect()
    }
}

const MAX_LINE_BYTES: u64 = 64 << 10;
/// A report is out of date after this time. Four intervals tolerate two lost reports.
const PATIENCE: Duration = Duration::from_secs(4 * EVERY_SECS);

#[cfg(test)]
mod tests {
    use headwater_api::StreamName;

    use super::*;
    use crate::hub::{Hub, Limits};

    #[tokio::test(start_paused = true)]
    async fn health_report_expires_without_a_new_one() {
        assert!(NodeHealthReceiver::by_nobody().checks().is_empty());
        let told = NodeHealthReceiver::by_a_daemon(&WallClock::default());
        assert_eq!(told.checks()["daemon"], Err("has sent no report yet".to_owned()));
        let text = b"{\"checks\":{\"lease\":\"ended\",\"clock\":null}}\nnonsense\n";
        told.listen(&text[..]);
        let checks = told.checks();
        assert_eq!(
            (&checks["daemon"], &checks["clock"], &checks["lease"]),
            (&Ok(()), &Ok(()), &Err("ended".to_owned()))
        );
        tokio::time::advance(PATIENCE).await;
        assert_eq!(told.checks()["daemon"], Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told.checks()["daemon"], Err("has sent no report for 9 s".to_owned()));
        told.hear(Standing::default());
        assert_eq!(told.checks()["daemon"], Ok(()));
    }

    #[tokio::test]
    async fn stream_start_times_use_the_clock_corrected_by_the_daemon() {
        let hub = Hub::new(Limits::default());
        let begun_ms =
            |id: &str| hub.publish(&StreamName::new("live", id).unwrap(), "test").unwrap().stream().started_at_ms();
        let told = NodeHealthReceiver::by_a_daemon(hub.wall_clock());
        let hour_ms = 3_600_000;
        let own_ms = begun_ms("a");
        told.hear(Standing { clock_ahead_ms: hour_ms, ..Standing::default() });
        let corrected_ms = begun_ms("b") + hour_ms.unsigned_abs();
        assert!(corrected_ms.abs_diff(own_ms) < hour_ms.unsigned_abs() / 2, "{corrected_ms} {own_ms}");
        told.hear(Standing::default());
        assert!(begun_ms("c") >= own_ms);
    }
}
