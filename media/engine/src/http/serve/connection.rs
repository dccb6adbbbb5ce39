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
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::serve::client::{ClientResolver, Encryption};
use crate::http::serve::metrics::Metrics;
use crate::http::serve::sendfile::SendfileStream;
use crate::http::serve::service::HttpService;
use crate::http::serve::strict_heads::{BodyLength, StrictHeads};
use crate::http::serve::timeout::{HEAD_TIMEOUT, RequestPhase, TimeoutStream};
use crate::runtime::client_pool::{ClientPool, PoolPlace};
use crate::runtime::trusted_proxies::TrustedProxies;
use crate::runtime::worker_pool::WorkerPool;

/// Maximum size of a request head; a longer one is answered with status 431.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Maximum number of header fields of a request.
const MAX_HEADERS: usize = 64;
/// Delay after a failed accept (file descriptors exhausted), in which other connections may close.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How a listener encrypts its connections.
#[derive(Clone)]
pub(crate) struct ListenerTls {
    pub(crate) acceptor: TlsAcceptor,
    /// True if the certificate is the node's own.
    pub(crate) is_self_signed: bool,
}

/// The state that all connections of one server share.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    service: Arc<HttpService>,
    pool: ClientPool,
    proxies: TrustedProxies,
    metrics: Metrics,
    tasks: TaskTracker,
    workers: WorkerPool,
    drain: CancellationToken,
    protocol: Arc<http1::Builder>,
}

impl Connections {
    pub(crate) fn new(
        service: HttpService,
        pool: ClientPool,
        proxies: TrustedProxies,
        metrics: Metrics,
        workers: WorkerPool,
        drain: CancellationToken,
    ) -> Self {
        let mut protocol = http1::Builder::new();
        // `TimeoutStream` bounds every wait without a timer per request.
        protocol.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        Self {
            service: Arc::new(service),
            pool,
            proxies,
            metrics,
            tasks: TaskTracker::new(),
            workers,
            drain,
            protocol: Arc::new(protocol),
        }
    }

    /// Accepts connections until the drain starts.
    pub(crate) async fn accept(&self, listener: TcpListener, tls: Option<ListenerTls>) {
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

    fn start(&self, stream: TcpStream, peer: SocketAddr, tls: Option<ListenerTls>) {
        let place = match self.pool.take(peer.ip()) {
            Ok(place) => place,
            Err(err) => {
                self.metrics.turned_away.inc();
                log::debug!(peer:%, err:%; "http connection turned away, too many are open");
                return;
            }
        };
        self.metrics.accepted.inc();
        // A response must not wait for the acknowledgement of the previous one.
        let _ = stream.set_nodelay(true);
        let this = self.clone();
        self.workers.spawn(&self.tasks, stream, move |stream| async move {
            match tls {
                None => this.serve(SendfileStream::new(stream), peer, Encryption::None, place).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => this.serve(stream, peer, tls.encryption(), place).await,
                    Ok(Err(err)) => log::debug!(peer:%, err:%; "tls handshake failed"),
                    Err(_) => log::debug!(peer:%; "tls handshake timed out"),
                },
            }
        });
    }

    pub(crate) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: T,
        peer: SocketAddr,
        encryption: Encryption,
        place: PoolPlace,
    ) {
        let _open = self.metrics.count_connection();
        let clients = ClientResolver::new(peer, encryption, &self.proxies);
        let phase = RequestPhase::default();
        let mut stream = TimeoutStream::new(stream, phase.clone());
        match self.service.serve_fast_path(&mut stream, &phase, &clients, &self.drain).await {
            Ok(Some(head)) => stream.push_back(head),
            Ok(None) => return,
            Err(err) => return log::trace!(peer:%, err:%; "http connection ended early"),
        }
        let service = self.service;
        let body = BodyLength::default();
        let stream = StrictHeads::new(stream, body.clone());
        let service = hyper::service::service_fn({
            let phase = phase.clone();
            move |request: hyper::Request<Incoming>| {
                phase.advance();
                let is_last = !body.on_request(&request);
                let answer = Arc::clone(&service).respond(request, clients.clone());
                let phase = phase.clone();
                async move {
                    let mut answer = answer.await;
                    if is_last {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
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
        drop(place);
    }
}

impl ListenerTls {
    fn encryption(&self) -> Encryption {
        if self.is_self_signed { Encryption::SelfSigned } else { Encryption::Certified }
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
