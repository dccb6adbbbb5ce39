//! Accepts connections and serves HTTP/1.1 on each, with a limit on their number and a timeout for
//! every wait. A connection starts on the fast path of HLS requests and continues with hyper at the
//! first request that the fast path does not support.
//!
//! Independent of the content: the service is a parameter.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::serve::metrics::Metrics;
use crate::http::serve::sendfile::SendfileStream;
use crate::http::serve::service::HttpService;
use crate::http::serve::timeout::{HEAD_TIMEOUT, RequestPhase, TimeoutStream};
use crate::runtime::worker_pool::WorkerPool;

/// Maximum size of a request head; a longer one is answered with status 431.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Maximum number of header fields of a request.
const MAX_HEADERS: usize = 64;
/// Delay after a failed accept (file descriptors exhausted), in which other connections may close.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The state that all connections of one server share.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    service: Arc<HttpService>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    tasks: TaskTracker,
    workers: WorkerPool,
    drain: CancellationToken,
    protocol: Arc<http1::Builder>,
}

impl Connections {
    pub(crate) fn new(
        service: HttpService,
        max_connections: usize,
        metrics: Metrics,
        workers: WorkerPool,
        drain: CancellationToken,
    ) -> Self {
        let mut protocol = http1::Builder::new();
        // `TimeoutStream` bounds every wait without a timer per request.
        protocol.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let permits = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Self {
            service: Arc::new(service),
            permits,
            metrics,
            tasks: TaskTracker::new(),
            workers,
            drain,
            protocol: Arc::new(protocol),
        }
    }

    /// Accepts connections until the drain starts.
    pub(crate) async fn accept(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.start(stream, peer, tls.clone()),
                Err(err) => {
                    log::warn!(err:%; "could not accept an http connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Waits at most `deadline` for all connections to end. Returns the number that still run.
    pub(crate) async fn finish(self, deadline: Duration) -> usize {
        self.tasks.close();
        let _ = tokio::time::timeout(deadline, self.tasks.wait()).await;
        self.tasks.len()
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.turned_away.inc();
            log::debug!(peer:%; "http connection turned away, too many are open");
            return;
        };
        self.metrics.accepted.inc();
        // A response must not wait for the acknowledgement of the previous one.
        let _ = stream.set_nodelay(true);
        let this = self.clone();
        self.workers.spawn(&self.tasks, stream, move |stream| async move {
            match tls {
                None => this.serve(SendfileStream::new(stream), peer, false, permit).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => this.serve(stream, peer, true, permit).await,
                    Ok(Err(err)) => log::debug!(peer:%, err:%; "tls handshake failed"),
                    Err(_) => log::debug!(peer:%; "tls handshake timed out"),
                },
            }
        });
    }

    async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: T,
        peer: SocketAddr,
        encrypted: bool,
        permit: OwnedSemaphorePermit,
    ) {
        let _open = self.metrics.count_connection();
        let phase = RequestPhase::default();
        let mut stream = TimeoutStream::new(stream, phase.clone());
        match self.service.serve_fast_path(&mut stream, &phase, peer, &self.drain).await {
            Ok(Some(head)) => stream.push_back(head),
            Ok(None) => return,
            Err(err) => return log::trace!(peer:%, err:%; "http connection ended early"),
        }
        let service = self.service;
        let service = hyper::service::service_fn({
            let phase = phase.clone();
            move |request: hyper::Request<Incoming>| {
                phase.advance();
                let answer = Arc::clone(&service).respond(request, peer, encrypted);
                let phase = phase.clone();
                async move {
                    let answer = answer.await;
                    phase.advance();
                    Ok::<_, Infallible>(answer)
                }
            }
        });
        let io = TokioIo::new(stream);
        let mut connection = std::pin::pin!(self.protocol.serve_connection(io, service));
        let result = tokio::select! {
            // A draining server still answers a request that it has already received.
            biased;
            result = connection.as_mut() => result,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(err) = result {
            log::trace!(peer:%, err:%; "http connection ended early");
        }
        drop(permit);
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
