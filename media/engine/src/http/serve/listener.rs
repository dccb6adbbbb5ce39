//! The public web server: an HTTP and an HTTPS listener for one service. Either may be off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::http::ops::process::{ProcessMetrics, StreamMetrics};
use crate::http::serve::connection::{Connections, ListenerTls};
use crate::http::serve::metrics::Metrics;
use crate::http::serve::service::HttpService;
use crate::hub::Hub;
use crate::runtime::client_pool::{ClientPool, SharePolicy};
use crate::runtime::listener::{ListenError, listen};
use crate::runtime::stages::Stages;
use crate::runtime::tls::ServerTls;
use crate::runtime::trusted_proxies::TrustedProxies;
use crate::runtime::worker_pool::WorkerPool;

/// Open listeners; [`Server::run`] accepts connections.
#[derive(Debug)]
pub struct Server {
    plain: Option<(TcpListener, SocketAddr)>,
    tls: Option<Tls>,
    pool: ClientPool,
    proxies: TrustedProxies,
    metrics: Metrics,
}

struct Tls {
    listener: TcpListener,
    address: SocketAddr,
    tls: ListenerTls,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens the listeners that are not off; HTTPS needs `tls`. `shares` limits how many
    /// connections one client may have.
    ///
    /// # Errors
    /// If an address is in use or is not an address of this host.
    pub fn bind(config: &config::Http, shares: &SharePolicy, tls: Option<&ServerTls>) -> Result<Self, ListenError> {
        let tls = config.tls_listen.address().zip(tls);
        let tls = tls.map(|(address, tls)| Tls::bind(address, tls)).transpose()?;
        let plain = config.listen.address().map(|address| listen("http", address)).transpose()?;
        let pool = shares.pool(config.max_connections.get());
        let (proxies, metrics) = (TrustedProxies::new(&config.trusted_proxies), Metrics::default());
        Ok(Self { plain, tls, pool, proxies, metrics })
    }

    /// The local address of the HTTP listener; `None` if it is off.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(|(_, address)| *address)
    }

    /// The local address of the HTTPS listener; `None` if it is off.
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
        let plain = async {
            if let Some((listener, _)) = self.plain {
                connections.accept(listener, None).await;
            }
        };
        let tls = async {
            if let Some(tls) = self.tls {
                connections.accept(tls.listener, Some(tls.tls)).await;
            }
        };
        tokio::join!(plain, tls);
        let cut = connections.finish(deadline).await;
        if cut > 0 {
            log::info!(connections = cut; "http connections closed at the end of the drain");
        }
    }
}

impl Tls {
    fn bind(address: SocketAddr, tls: &ServerTls) -> Result<Self, ListenError> {
        let (listener, address) = listen("https", address)?;
        let mut config = rustls::ServerConfig::clone(tls.config());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { listener, address, tls: ListenerTls { acceptor, is_self_signed: tls.is_self_signed() } })
    }
}
