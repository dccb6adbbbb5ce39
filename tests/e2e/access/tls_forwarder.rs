//! Forwards plain connections to a TLS server, for clients that know no TLS. Verifies the server's
//! certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The running forwarder. Accepts no more connections once dropped.
#[derive(Debug)]
pub(super) struct TlsForwarder {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsForwarder {
    /// Forwards to `server`, which must have this certificate for `localhost`. Its connections come
    /// from `source`.
    pub(super) fn start(
        runtime: &Handle,
        server: SocketAddr,
        certificate: CertificateDer<'static>,
        source: Ipv4Addr,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let task = runtime.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind((source, 0).into()).unwrap();
                    let Ok(server) = socket.connect(server).await else { return };
                    let name = ServerName::try_from("localhost").unwrap();
                    let Ok(mut server) = connector.connect(name, server).await else { return };
                    // Either end may disconnect at any time.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, task }
    }

    /// Where plain connections are accepted.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsForwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
