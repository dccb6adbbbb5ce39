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
pub enum Manner {
    /// Delays every answer by this much.
    Late(Duration),
    /// Forwards nothing; connections stay open.
    Silent,
}

/// A running proxy. Accepts no more connections once dropped.
#[derive(Debug)]
pub struct Delay {
    manner: watch::Sender<Manner>,
    task: tokio::task::JoinHandle<()>,
}

impl Delay {
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
        let (manner, seen) = watch::channel(Manner::Late(Duration::ZERO));
        let connect = Arc::new(connect);
        let task = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (connect, seen) = (Arc::clone(&connect), seen.clone());
                tokio::spawn(async move {
                    // If the server is unreachable, the client sees its connection closed.
                    let opened = tokio::task::spawn_blocking(move || connect()).await;
                    let Ok(Ok(server)) = opened else { return };
                    let _ = pass(client, server, seen).await;
                });
            }
        });
        Ok(Self { manner, task })
    }

    /// Changes the behaviour, also of open connections.
    pub fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: std::net::TcpStream, manner: watch::Receiver<Manner>) -> std::io::Result<()> {
    server.set_nonblocking(true)?;
    let server = TcpStream::from_std(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        done = copy(from_client, to_server, manner.clone(), false) => done,
        done = copy(from_server, to_client, manner, true) => done,
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut manner: watch::Receiver<Manner>,
    late: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // The sender is dropped with the proxy.
        let now = manner.wait_for(|m| *m != Manner::Silent).await.map_or(Manner::Silent, |m| *m);
        match now {
            Manner::Late(by) if late && !by.is_zero() => tokio::time::sleep(by).await,
            Manner::Late(_) => {}
            Manner::Silent => return Ok(()),
        }
        to.write_all(&buffer[..n]).await?;
    }
}
