//! Accepts connections and serves HTTP/1.1 on each, with a limit on their number and on every wait: in short as long as it
//! brings plain requests only, by the library after that.
//!
//! Knows nothing of what is served: the site is a parameter.

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

use super::metrics::Metrics;
use super::patience::{HEAD, Patient, Phase};
use super::site::Site;
use super::uncopied::Uncopied;
use crate::lanes::Lanes;

/// Bytes of a request head at most; longer ones get 431.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Header lines of a request at most.
const MAX_HEADERS: usize = 64;
/// After an accept that failed (no file descriptors left): how long to leave the others room to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who sent a request; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// An extension of requests that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encrypted;

/// What all connections of one server share.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    site: Arc<Site>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    tasks: TaskTracker,
    lanes: Lanes,
    drain: CancellationToken,
    protocol: Arc<http1::Builder>,
}

impl Connections {
    pub(super) fn new(
        site: Site,
        max_connections: usize,
        metrics: Metrics,
        lanes: Lanes,
        drain: CancellationToken,
    ) -> Self {
        let mut protocol = http1::Builder::new();
        // The waits are bounded by `Patient`, which costs no timer per request.
        protocol.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let permits = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Self {
            site: Arc::new(site),
            permits,
            metrics,
            tasks: TaskTracker::new(),
            lanes,
            drain,
            protocol: Arc::new(protocol),
        }
    }

    /// Accepts until drained.
    pub(super) async fn accept(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                () = self.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.start(stream, peer, tls.clone()),
                Err(err) => {
                    log::warn!(err:%; "http connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for all connections to end; after `deadline` what is left is cut. Gives how many were cut.
    pub(super) async fn finish(self, deadline: Duration) -> usize {
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
        // An answer must not wait for the acknowledgement of the one before it.
        let _ = stream.set_nodelay(true);
        let this = self.clone();
        self.lanes.spawn(&self.tasks, stream, move |stream| async move {
            match tls {
                None => this.serve(Uncopied::new(stream), peer, false, permit).await,
                Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                    Ok(Ok(stream)) => this.serve(stream, peer, true, permit).await,
                    Ok(Err(err)) => log::debug!(peer:%, err:%; "tls handshake failed"),
                    Err(_) => log::debug!(peer:%; "tls handshake took too long"),
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
        let _open = self.metrics.open();
        let phase = Phase::default();
        let mut stream = Patient::new(stream, phase.clone());
        match self.site.answer_plain(&mut stream, &phase, peer, &self.drain).await {
            Ok(Some(head)) => stream.unread(head),
            Ok(None) => return,
            Err(err) => return log::trace!(peer:%, err:%; "http connection ended early"),
        }
        let site = self.site;
        let service = hyper::service::service_fn({
            let phase = phase.clone();
            move |request: hyper::Request<Incoming>| {
                phase.advance();
                let answer = Arc::clone(&site).answer(request, peer, encrypted);
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
            // A request that is here already is answered, also by a server that drains.
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
