//! The public web server: an HTTP listener and, with a certificate, an HTTPS listener for one
//! service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::http::ops::process::{ProcessMetrics, StreamMetrics};
use crate::http::serve::connection::Connections;
use crate::http::serve::metrics::Metrics;
use crate::http::serve::service::HttpService;
use crate::hub::Hub;
use crate::runtime::client_pool::{ClientPool, SharePolicy};
use crate::runtime::listener::{ListenError, listen};
use crate::runtime::stages::Stages;
use crate::runtime::trusted_proxies::TrustedProxies;
use crate::runtime::worker_pool::WorkerPool;

/// Open listeners; [`Server::run`] accepts connections.
#[derive(Debug)]
pub struct Server {
    plain: TcpListener,
    plain_address: SocketAddr,
    tls: Option<Tls>,
    pool: ClientPool,
    proxies: TrustedProxies,
    metrics: Metrics,
}

struct Tls {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the HTTP listener, and the HTTPS listener if there is a certificate. `shares` limits
    /// how many connections one client may have.
    ///
    /// # Errors
    /// If an address is in use or is not an address of this host.
    pub fn bind(
        config: &config::Http,
        shares: &SharePolicy,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self, ListenError> {
        let tls = tls.map(|tls| Tls::bind(config.tls_listen, &tls)).transpose()?;
        let (plain, plain_address) = listen("http", config.listen)?;
        let pool = shares.pool(config.max_connections.get());
        let (proxies, metrics) = (TrustedProxies::new(&config.trusted_proxies), Metrics::default());
        Ok(Self { plain, plain_address, tls, pool, proxies, metrics })
    }

    /// The local address of the HTTP listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.plain_address
    }

    /// The local address of the HTTPS listener, if there is a certificate.
    pub fn tls_local_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.address)
    }

    /// The counters of this server.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Adds the public server to the stages: its counters, those of the process and of the streams
    /// of `hub`, and the task that serves `service`.
    pub fn mount(self, service: HttpService, hub: &Hub, stages: &mut Stages) {
        stages.metrics().register_collector(Box::new(ProcessMetrics));
        let own = stages.own_metrics();
        own.register_collector(Box::new(StreamMetrics(hub.clone())));
        self.metrics.register(own);
        let (workers, drain) = (stages.workers(), stages.drain().close_viewers.clone());
        let deadline = stages.deadline();
        stages.add_serving(self.run(service, workers, drain, deadline));
    }

    /// Serves until `drain` is cancelled, then waits at most `deadline` for responses in progress.
    pub async fn run(
        self,
        service: impl Into<HttpService>,
        workers: WorkerPool,
        drain: CancellationToken,
        deadline: Duration,
    ) {
        let connections = Connections::new(service.into(), self.pool, self.proxies, self.metrics, workers, drain);
        let tls = async {
            if let Some(tls) = self.tls {
                connections.accept(tls.listener, Some(tls.acceptor)).await;
            }
        };
        tokio::join!(connections.accept(self.plain, None), tls);
        let cut = connections.finish(deadline).await;
        if cut > 0 {
            log::info!(connections = cut; "http connections closed at the end of the drain");
        }
    }
}

impl Tls {
    fn bind(address: SocketAddr, config: &rustls::ServerConfig) -> Result<Self, ListenError> {
        let (listener, address) = listen("https", address)?;
        let mut config = config.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { listener, address, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}
