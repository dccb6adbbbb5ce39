//! A TLS proxy in front of a database, whose certificate can be changed while it runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub(crate) struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

impl CertificateAuthority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate of the authority, for clients that trust it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a host.
    pub(crate) fn certify(&self, host: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        TlsAcceptor::from(Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap()))
    }
}

/// The running proxy. Accepts no more connections once dropped.
pub(crate) struct TlsProxy {
    port: u16,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    /// A new value closes all connections.
    disconnect_tx: watch::Sender<()>,
    rejected: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TlsProxy {
    pub(crate) fn start(runtime: &Handle, server: SocketAddr, certificate: TlsAcceptor) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shown, cut) = (Arc::new(Mutex::new(certificate)), watch::Sender::new(()));
        let refused = Arc::new(AtomicUsize::new(0));
        let (shows, cutter, refuses) = (Arc::clone(&shown), cut.clone(), Arc::clone(&refused));
        let _entered = runtime.enter();
        let listener = TcpListener::from_std(listener).unwrap();
        let task = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut cut, refuses) = (cutter.subscribe(), Arc::clone(&refuses));
                let acceptor = shows.lock().unwrap().clone();
                tokio::spawn(async move {
                    let carry = async {
                        let Ok(mut client) = acceptor.accept(client).await else {
                            refuses.fetch_add(1, Ordering::SeqCst);
                            return;
                        };
                        let Ok(mut server) = TcpStream::connect(server).await else { return };
                        // Either end may disconnect at any time.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    };
                    tokio::select! {
                        () = carry => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, acceptor: shown, disconnect_tx: cut, rejected: refused, task }
    }

    /// Port of the proxy on `localhost`.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the certificate and closes all connections, so that clients must reconnect.
    pub(crate) fn set_certificate(&self, certificate: TlsAcceptor) {
        *self.acceptor.lock().unwrap() = certificate;
        self.disconnect_tx.send_replace(());
    }

    /// Number of failed handshakes, usually because the client did not trust the certificate.
    pub(crate) fn rejected_handshakes(&self) -> usize {
        self.rejected.load(Ordering::SeqCst)
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
