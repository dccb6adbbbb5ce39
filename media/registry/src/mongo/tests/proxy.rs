//! A TCP proxy in front of the database that delays and stalls answers, closes connections, and
//! terminates TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The faults that the proxy injects.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Delay of each answer, in milliseconds.
    pub(super) delay_ms: AtomicU64,
    /// Answers are withheld.
    pub(super) stalled: AtomicBool,
    /// New connections are closed at once.
    pub(super) refusing: AtomicBool,
}

/// Dropping it stops the proxy and closes its connections.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) faults: Arc<Faults>,
    /// A new value closes all connections.
    cut_tx: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(server: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let cut_tx = watch::Sender::new(0);
        let (task_faults, task_cut_tx) = (faults.clone(), cut_tx.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if task_faults.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let (faults, mut cut_rx) = (task_faults.clone(), task_cut_tx.subscribe());
                let (server, tls) = (server.clone(), tls.clone());
                connections.spawn(async move {
                    let forwarding = async {
                        let Ok(server) = TcpStream::connect(server).await else { return };
                        match tls {
                            None => forward(client, server, &faults).await,
                            Some(tls) => {
                                if let Ok(client) = tls.accept(client).await {
                                    forward(client, server, &faults).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = forwarding => {}
                        _ = cut_rx.changed() => {}
                    }
                });
            }
        });
        Self { address, faults, cut_tx, task }
    }

    /// Closes all connections, in whatever state they are.
    pub(super) fn cut(&self) {
        self.cut_tx.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward<C: AsyncRead + AsyncWrite>(client: C, server: TcpStream, faults: &Faults) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
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
        () = requests => {}
        () = answers => {}
    }
}
