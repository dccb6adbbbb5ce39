//! A TCP proxy that delays the answers of a server, or stalls while connections stay open.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Behaviour of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayMode {
    /// Delays every answer by this much.
    Delayed(Duration),
    /// Forwards nothing; connections stay open.
    Stalled,
}

/// A running proxy. Accepts no more connections once dropped.
#[derive(Debug)]
pub struct DelayProxy {
    mode_tx: watch::Sender<DelayMode>,
    task: tokio::task::JoinHandle<()>,
}

impl DelayProxy {
    /// Forwards connections of `listener` to the stream that `connect` opens, at first without
    /// delay. `connect` may block.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub fn start(
        runtime: &Handle,
        listener: TcpListener,
        connect: impl Fn() -> anyhow::Result<std::net::TcpStream> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (mode_tx, mode_rx) = watch::channel(DelayMode::Delayed(Duration::ZERO));
        let connect = Arc::new(connect);
        let task = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (connect, mode_rx) = (Arc::clone(&connect), mode_rx.clone());
                tokio::spawn(async move {
                    // If the server is unreachable, the client sees its connection closed.
                    let opened = tokio::task::spawn_blocking(move || connect()).await;
                    let Ok(Ok(server)) = opened else { return };
                    let _ = forward(client, server, mode_rx).await;
                });
            }
        });
        Ok(Self { mode_tx, task })
    }

    /// Changes the behaviour, also of open connections.
    pub fn set_mode(&self, mode: DelayMode) {
        self.mode_tx.send_replace(mode);
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    client: TcpStream,
    server: std::net::TcpStream,
    mode_rx: watch::Receiver<DelayMode>,
) -> std::io::Result<()> {
    server.set_nonblocking(true)?;
    let server = TcpStream::from_std(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        done = copy_with_delay(from_client, to_server, mode_rx.clone(), false) => done,
        done = copy_with_delay(from_server, to_client, mode_rx, true) => done,
    }
}

async fn copy_with_delay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode_rx: watch::Receiver<DelayMode>,
    is_response: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // The sender is dropped with the proxy.
        let now = mode_rx.wait_for(|m| *m != DelayMode::Stalled).await.map_or(DelayMode::Stalled, |m| *m);
        match now {
            DelayMode::Delayed(by) if is_response && !by.is_zero() => tokio::time::sleep(by).await,
            DelayMode::Delayed(_) => {}
            DelayMode::Stalled => return Ok(()),
        }
        to.write_all(&buffer[..n]).await?;
    }
}
