//! The public web server: an HTTP and, with a certificate, an HTTPS listener in front of one site.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::config;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::Connections;
use super::metrics::Metrics;
use super::site::Site;
use crate::lanes::Lanes;
use crate::listen::{ListenError, listen};

/// Open listeners that do not serve yet; see [`Server::run`].
#[derive(Debug)]
pub struct Server {
    plain: TcpListener,
    plain_address: SocketAddr,
    tls: Option<Tls>,
    max_connections: usize,
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
    /// Opens the HTTP listener, and the HTTPS one if there is a certificate.
    ///
    /// # Errors
    /// If an address is taken or not ours.
    pub fn bind(config: &config::Http, tls: Option<Arc<rustls::ServerConfig>>) -> Result<Self, ListenError> {
        let tls = tls.map(|tls| Tls::bind(config.tls_listen, &tls)).transpose()?;
        Ok(Self { tls, ..Self::bind_plain("http", config.listen, config.max_connections.get())? })
    }

    /// Opens one plain listener.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind_plain(what: &'static str, address: SocketAddr, max_connections: usize) -> Result<Self, ListenError> {
        let (plain, plain_address) = listen(what, address)?;
        Ok(Self { plain, plain_address, tls: None, max_connections, metrics: Metrics::default() })
    }

    /// Where HTTP is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.plain_address
    }

    /// Where HTTPS is served, if there is a certificate.
    pub fn tls_local_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|tls| tls.address)
    }

    /// What it counts.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Serves until `drain` is cancelled, then lets running answers finish for `deadline` at most.
    pub async fn run(self, site: impl Into<Site>, lanes: Lanes, drain: CancellationToken, deadline: Duration) {
        let connections = Connections::new(site.into(), self.max_connections, self.metrics, lanes, drain);
        let tls = async {
            if let Some(tls) = self.tls {
                connections.accept(tls.listener, Some(tls.acceptor)).await;
            }
        };
        tokio::join!(connections.accept(self.plain, None), tls);
        let cut = connections.finish(deadline).await;
        if cut > 0 {
            log::info!(connections = cut; "http connections cut at the end of the drain");
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
