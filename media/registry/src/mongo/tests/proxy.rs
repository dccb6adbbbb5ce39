//! A TCP proxy in front of the database that delays, stalls, cuts and speaks TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What the proxy does to the answers of the database.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Each answer waits so long, in milliseconds.
    pub(super) delay_ms: AtomicU64,
    /// Nothing comes back.
    pub(super) stalled: AtomicBool,
    /// New connections are closed at once.
    pub(super) refusing: AtomicBool,
}

/// Dropping it ends the proxy and its connections.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) faults: Arc<Faults>,
    /// A new value cuts all connections.
    cut: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(server: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let cut = watch::Sender::new(0);
        let (shared, cutter) = (faults.clone(), cut.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if shared.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let (faults, server, tls, mut cut) = (shared.clone(), server.clone(), tls.clone(), cutter.subscribe());
                connections.spawn(async move {
                    let carry = async {
                        let Ok(server) = TcpStream::connect(server).await else { return };
                        match tls {
                            None => carry(client, server, &faults).await,
                            Some(tls) => {
                                if let Ok(client) = tls.accept(client).await {
                                    carry(client, server, &faults).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = carry => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, faults, cut, task }
    }

    /// Cuts all connections, wherever they are.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry<C: AsyncRead + AsyncWrite>(client: C, server: TcpStream, faults: &Faults) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let questions = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let answers = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            tokio::time::sleep(Duration::from_millis(faults.delay_ms.load(Ordering::SeqCst))).await;
            if faults.stalled.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if to_client.write_all(&buffer[..n]).await.is_err() || to_client.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = questions => {}
        () = answers => {}
    }
}
