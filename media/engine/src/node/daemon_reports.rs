//! Sends reports to the daemon, on the socket that is the engine's standard input: they show that
//! the engine runs tasks, and which of its own parts do not work yet.
//!
//! The socket is inherited from the daemon, so no network peer can fill or reach it. Must not wait
//! for a disk, a registry or a peer: a daemon that receives no reports kills the engine.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::control::{ENGINE_REPORT_INTERVAL_SECS, Endpoints, EngineReport};
use rustix::net::SendFlags;

/// Resolves to the failing checks of the engine's own parts, by name, with the reason.
pub type FailingChecks = Pin<Box<dyn Future<Output = BTreeMap<String, String>> + Send>>;

/// The socket to the daemon; clones share it.
#[derive(Debug, Clone)]
pub struct DaemonSocket(Arc<OwnedFd>);

impl DaemonSocket {
    /// Duplicates standard input; `None` if that is not a socket: then there is no daemon that
    /// reads reports.
    pub fn from_stdin() -> Option<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        rustix::net::sockopt::socket_type(&socket).is_ok().then(|| Self(Arc::new(socket)))
    }

    /// Sends one line. Does not block: if the daemon reads nothing, the report is lost.
    fn send(&self, report: &EngineReport) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        // A Unix socket accepts a message of this size completely or not at all.
        rustix::net::send(&self.0, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn send_or_log(&self, report: &EngineReport) {
        if let Err(err) = self.send(report) {
            log::debug!(err:%; "could not send a report to the daemon");
        }
    }
}

/// Sends reports until it is aborted, while the engine opens its data folder, its registry and its
/// listeners: a disk may take as long as it needs.
///
/// Must run on another thread than the opening, which blocks its own.
pub async fn run_start_reports(socket: DaemonSocket) {
    let failing = BTreeMap::from([("start".to_owned(), "waits for the disk".to_owned())]);
    let report = EngineReport { endpoints: None, failing };
    let mut ticks = tokio::time::interval(Duration::from_secs(ENGINE_REPORT_INTERVAL_SECS));
    for tick in 0_u64.. {
        ticks.tick().await;
        if tick == START_WARNING_TICKS {
            log::warn!("the engine is still starting: it waits for the disk of its data folder");
        }
        socket.send_or_log(&report);
    }
}

/// Sends reports until it is aborted. `failing_checks` is repeated until no check fails; then the
/// engine has started, and `/readyz` reports what fails later.
pub async fn run_daemon_reports(
    socket: DaemonSocket,
    endpoints: Endpoints,
    failing_checks: impl Fn() -> FailingChecks + Send,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(ENGINE_REPORT_INTERVAL_SECS));
    let mut report = EngineReport {
        endpoints: Some(endpoints),
        failing: [("start".to_owned(), "no check has ended yet".to_owned())].into(),
    };
    let mut checks = failing_checks();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            failing = &mut checks, if !report.failing.is_empty() => {
                report.failing = failing;
                if !report.failing.is_empty() {
                    let again = failing_checks();
                    checks = Box::pin(async move {
                        tokio::time::sleep(CHECK_INTERVAL).await;
                        again.await
                    });
                    continue;
                }
            }
        }
        socket.send_or_log(&report);
    }
}

/// Pause between two rounds of checks, which is also the delay that a start may gain.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// A start that has taken this number of report intervals is logged.
const START_WARNING_TICKS: u64 = 10;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn endpoints() -> Endpoints {
        let port = |n: u16| ([127, 0, 0, 1], n).into();
        Endpoints {
            pid: 7,
            http: Some(port(1)),
            https: None,
            self_signed_fingerprint: None,
            rtmp: Some(port(2)),
            rtmps: None,
            relay: None,
            webrtc: vec![],
            health: port(3),
        }
    }

    fn socket_of(stream: UnixStream) -> DaemonSocket {
        DaemonSocket(Arc::new(stream.into()))
    }

    async fn next_report(reader: BufReader<UnixStream>) -> (EngineReport, BufReader<UnixStream>) {
        tokio::task::spawn_blocking(move || {
            let (mut reader, mut line) = (reader, String::new());
            reader.read_line(&mut line).unwrap();
            (serde_json::from_str(&line).unwrap(), reader)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn reports_continue_while_a_check_hangs_and_show_when_all_checks_pass() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let rounds = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(tokio::sync::Notify::new());
        let checks = {
            let (rounds, release) = (Arc::clone(&rounds), Arc::clone(&release));
            move || -> FailingChecks {
                let (round, release) = (rounds.fetch_add(1, Ordering::Relaxed), Arc::clone(&release));
                Box::pin(async move {
                    match round {
                        0 => BTreeMap::from([("rtmp".to_owned(), "does not answer".to_owned())]),
                        // The second round hangs until the test has received reports during it.
                        _ => {
                            release.notified().await;
                            BTreeMap::new()
                        }
                    }
                })
            }
        };
        let task = tokio::spawn(run_daemon_reports(socket_of(theirs), endpoints(), checks));
        let mut reader = BufReader::new(ours);
        let mut hanging = 0;
        while hanging < 2 {
            let (report, rest) = next_report(reader).await;
            reader = rest;
            assert_eq!(report.endpoints, Some(endpoints()));
            assert!(!report.failing.is_empty());
            hanging += usize::from(report.failing.contains_key("rtmp"));
        }
        release.notify_one();
        loop {
            let (report, rest) = next_report(reader).await;
            reader = rest;
            if report.failing.is_empty() {
                break;
            }
        }
        task.abort();
    }

    #[tokio::test]
    async fn starting_engine_reports_while_its_own_thread_is_blocked() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = runtime.spawn(run_start_reports(socket_of(theirs)));
        // Blocking reads on this thread, as of a disk.
        let mut lines = BufReader::new(ours).lines();
        for _ in 0..2 {
            let report: EngineReport = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(report.endpoints, None);
            assert!(report.failing.contains_key("start"));
        }
        task.abort();
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn daemon_that_reads_nothing_does_not_block_the_engine() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let socket = socket_of(theirs);
        let report = EngineReport { endpoints: Some(endpoints()), failing: BTreeMap::new() };
        let sent = (0..100_000).take_while(|_| socket.send(&report).is_ok()).count();
        assert!((1..100_000).contains(&sent), "{sent} reports were accepted");
    }
}
