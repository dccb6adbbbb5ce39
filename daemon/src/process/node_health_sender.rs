//! Sends the node's health to a running engine: one line of JSON per report.

use std::time::Duration;

use headwater_api::control::{NodeHealth, REPORT_INTERVAL_SECS};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Sends reports until it is dropped or the engine closes its input.
#[derive(Debug)]
pub(crate) struct NodeHealthSender(JoinHandle<()>);

impl NodeHealthSender {
    /// Starts with the current value of `health_rx`.
    pub(crate) fn start(
        input: impl AsyncWrite + Unpin + Send + 'static,
        health_rx: watch::Receiver<NodeHealth>,
    ) -> Self {
        Self(tokio::spawn(send_reports(input, health_rx)))
    }
}

impl Drop for NodeHealthSender {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a report on every change, and at least once per interval.
async fn send_reports(mut input: impl AsyncWrite + Unpin, mut health_rx: watch::Receiver<NodeHealth>) {
    loop {
        let line = serde_json::to_vec(&*health_rx.borrow_and_update()).unwrap_or_default();
        if input.write_all(&[&line[..], b"\n"].concat()).await.is_err() {
            return;
        }
        let _ = tokio::time::timeout(Duration::from_secs(REPORT_INTERVAL_SECS), health_rx.changed()).await;
    }
}
