//! The socket between the daemon and one engine process: health reports go in, engine reports come
//! out, each one line of JSON.
//!
//! The engine inherits its end as standard input, so no network peer can reach it: a flood of
//! the engine's listeners cannot make the daemon believe that the engine hangs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use headwater_api::control::{Endpoints, EngineReport, NodeHealth};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process::engine_state::Event;
use crate::process::node_health_sender::NodeHealthSender;

/// Both directions. Dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct EngineLink {
    reports_rx: watch::Receiver<Option<EngineReport>>,
    reader: JoinHandle<()>,
    _health_sender: NodeHealthSender,
}

/// The daemon's end of a socket whose other end an engine will inherit.
#[derive(Debug)]
pub(crate) struct UnstartedLink(StdUnixStream);

impl UnstartedLink {
    /// Makes the socket. The second value is the standard input of the engine.
    pub(crate) fn new() -> io::Result<(Self, Stdio)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self(ours), Stdio::from(OwnedFd::from(theirs))))
    }

    /// Starts to send the values of `health_rx` and to receive reports.
    pub(crate) fn start(self, health_rx: watch::Receiver<NodeHealth>) -> io::Result<EngineLink> {
        let (input, output) = UnixStream::from_std(self.0)?.into_split();
        let (reports_tx, reports_rx) = watch::channel(None);
        Ok(EngineLink {
            reports_rx,
            reader: tokio::spawn(receive_reports(input, reports_tx)),
            _health_sender: NodeHealthSender::start(output, health_rx),
        })
    }
}

impl EngineLink {
    /// Waits for the next report. Cancel safe: it starts to wait again.
    pub(crate) async fn next_event(&mut self) -> Event {
        match tokio::time::timeout(REPORT_TIMEOUT, self.reports_rx.changed()).await {
            Ok(Ok(())) => match self.reports_rx.borrow_and_update().as_ref() {
                Some(report) if report.endpoints.is_none() => Event::Starting(describe(&report.failing)),
                Some(report) if report.failing.is_empty() => Event::Ready,
                Some(report) => Event::Live(describe(&report.failing)),
                None => Event::Unhealthy("it has sent no report".to_owned()),
            },
            Ok(Err(_)) => {
                // A living engine never closes the socket, so this is silence too.
                tokio::time::sleep(REPORT_TIMEOUT).await;
                Event::Unhealthy("it has closed its socket to the daemon".to_owned())
            }
            Err(_) => Event::Unhealthy(format!("it has sent no report for {} s", REPORT_TIMEOUT.as_secs())),
        }
    }

    /// The listeners of the engine; `None` before it has reported them.
    pub(crate) fn endpoints(&self) -> Option<Endpoints> {
        self.reports_rx.borrow().as_ref().and_then(|report| report.endpoints.clone())
    }
}

impl Drop for EngineLink {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Receives one report per line, until end of file or an overlong line.
async fn receive_reports(input: impl AsyncRead + Unpin, reports_tx: watch::Sender<Option<EngineReport>>) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        match serde_json::from_slice(&line) {
            Ok(report) => drop(reports_tx.send_replace(Some(report))),
            Err(err) => log::warn!(err:%; "could not parse a report of the engine"),
        }
    }
}

fn describe(failing: &BTreeMap<String, String>) -> String {
    let all: Vec<_> = failing.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    all.join("; ")
}

/// After this time without a report, one wait counts as a failure. Six intervals: a machine that is
/// merely starved of CPU must not lose its engine.
const REPORT_TIMEOUT: Duration = Duration::from_secs(6);
const MAX_LINE_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, Write as _};

    use super::*;

    fn report(failing: &[(&str, &str)]) -> EngineReport {
        let port = |n: u16| ([127, 0, 0, 1], n).into();
        EngineReport {
            endpoints: Some(Endpoints {
                pid: 7,
                http: Some(port(1)),
                https: None,
                self_signed_fingerprint: None,
                rtmp: Some(port(2)),
                rtmps: None,
                relay: None,
                webrtc: Vec::new(),
                health: port(3),
            }),
            failing: failing.iter().map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned())).collect(),
        }
    }

    fn send(engine: &mut StdUnixStream, report: &EngineReport) {
        writeln!(engine, "{}", serde_json::to_string(report).unwrap()).unwrap();
    }

    fn link() -> (EngineLink, StdUnixStream) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (UnstartedLink(ours).start(watch::channel(NodeHealth::default()).1).unwrap(), theirs)
    }

    #[tokio::test]
    async fn reports_of_the_engine_become_events_and_health_reports_reach_it() {
        let (mut link, mut engine) = link();
        assert_eq!(link.endpoints(), None);
        send(&mut engine, &EngineReport { endpoints: None, ..report(&[("start", "waits for the disk")]) });
        assert_eq!(link.next_event().await, Event::Starting("start: waits for the disk".to_owned()));
        assert_eq!(link.endpoints(), None);
        send(&mut engine, &report(&[("rtmp", "does not answer")]));
        assert_eq!(link.next_event().await, Event::Live("rtmp: does not answer".to_owned()));
        writeln!(engine, "nonsense").unwrap();
        send(&mut engine, &report(&[]));
        assert_eq!(link.next_event().await, Event::Ready);
        assert_eq!(link.endpoints(), report(&[]).endpoints);
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufReader::new(engine).read_line(&mut line).unwrap();
            line
        });
        assert_eq!(serde_json::from_str::<NodeHealth>(&line.await.unwrap()).unwrap(), NodeHealth::default());
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_closed_engines_are_unhealthy_after_the_timeout() {
        let (mut link, engine) = link();
        let start = tokio::time::Instant::now();
        let expected = Event::Unhealthy("it has sent no report for 6 s".to_owned());
        assert_eq!((link.next_event().await, start.elapsed()), (expected, REPORT_TIMEOUT));
        drop(engine);
        let event = loop {
            match link.next_event().await {
                Event::Unhealthy(reason) if reason.contains("no report") => {}
                event => break event,
            }
        };
        assert_eq!(event, Event::Unhealthy("it has closed its socket to the daemon".to_owned()));
    }
}
