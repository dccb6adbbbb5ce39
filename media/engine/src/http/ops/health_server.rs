//! The health listener: HTTP/1.1 for load balancers, Prometheus and the daemon, on a few
//! connections.
//!
//! `health_connections.rs` decides which connections stay. An idle one is closed after
//! [`IDLE_TIMEOUT`], so that silent peers do not exclude others. Independent of the content: the
//! router is a parameter.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::Service as _;

use crate::http::ops::health_connections::ConnectionTable;
use crate::http::serve::service::respond_without_handler;
use crate::http::serve::strict_heads::{BodyLength, StrictHeads};
use crate::runtime::listener::{ListenError, listen};

/// A connection without a request that is being answered is closed after this duration. Time in
/// which bytes of an answer are sent does not count.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time until an answer is ready.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request head.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Delay after a failed accept, for example without a free file descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The open listener; `run` serves.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HealthServer {
    /// Opens the listener.
    ///
    /// # Errors
    /// If the address is in use or is not an address of this host.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let (listener, address) = listen("health", address)?;
        Ok(Self { listener, address })
    }

    /// The local address of the listener.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped, with all its connections.
    pub(super) async fn run(self, router: Router) {
        let table = Arc::new(Mutex::new(ConnectionTable::default()));
        let mut protocol = http1::Builder::new();
        protocol.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let is_local = is_on_this_machine(&stream, peer);
                        let admitted = lock(&table).admit(is_local, Instant::now());
                        let Some((id, closed)) = admitted else {
                            log::debug!(peer:%; "health connection refused, all others are being answered");
                            continue;
                        };
                        let entry = TableEntry { table: Arc::clone(&table), id };
                        let (protocol, router) = (protocol.clone(), router.clone());
                        connections.spawn(async move {
                            tokio::select! {
                                () = serve(stream, &entry, &protocol, router) => {}
                                () = closed.cancelled() => log::trace!(peer:%; "health connection replaced by a new one"),
                                () = entry.wait_until_idle_too_long() => {}
                            }
                        });
                    }
                    Err(err) => {
                        log::warn!(err:%; "could not accept a health connection");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn serve(stream: TcpStream, entry: &TableEntry, protocol: &http1::Builder, router: Router) {
    let _ = stream.set_nodelay(true);
    let body = BodyLength::default();
    let stream = StrictHeads::new(ReportedStream { stream, entry }, body.clone());
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        entry.with(|table, id| table.on_request(id));
        let is_last = !body.on_request(&request);
        let early = respond_without_handler(&request);
        let answer = router.clone().call(request);
        async move {
            let mut answer: Response = match early {
                Some(answer) => answer,
                None => match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                    Ok(answer) => answer.unwrap_or_else(|never| match never {}),
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                },
            };
            if is_last {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            entry.with(|table, id| table.on_answer(id, Instant::now()));
            Ok::<_, Infallible>(answer)
        }
    });
    if let Err(err) = protocol.serve_connection(TokioIo::new(stream), service).await {
        log::trace!(err:%; "health connection ended early");
    }
}

/// True if the peer is a process of this machine.
fn is_on_this_machine(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == peer)
}

/// The entry of one connection in the table; removed on drop.
#[derive(Debug)]
struct TableEntry {
    table: Arc<Mutex<ConnectionTable>>,
    id: u64,
}

impl TableEntry {
    fn with<T>(&self, act: impl FnOnce(&mut ConnectionTable, u64) -> T) -> T {
        act(&mut lock(&self.table), self.id)
    }

    async fn wait_until_idle_too_long(&self) {
        loop {
            let now = Instant::now();
            let close_at = self.with(|table, id| table.idle_since(id)).unwrap_or(now) + IDLE_TIMEOUT;
            if close_at <= now {
                return;
            }
            tokio::time::sleep_until(close_at).await;
        }
    }
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        self.with(ConnectionTable::remove);
    }
}

fn lock(table: &Mutex<ConnectionTable>) -> MutexGuard<'_, ConnectionTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that reports sent bytes to the table.
struct ReportedStream<'a> {
    stream: TcpStream,
    entry: &'a TableEntry,
}

impl AsyncRead for ReportedStream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ReportedStream<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(1..)) = written {
            self.entry.with(|table, id| table.on_bytes_sent(id, Instant::now()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::ops::health_connections::MAX_CONNECTIONS;

    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    /// Ends only a test that fails anyway.
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    async fn start() -> SocketAddr {
        let server = HealthServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.local_addr();
        tokio::spawn(server.run(Router::new().route("/livez", get(async || "alive\n"))));
        address
    }

    async fn request(address: SocketAddr) -> String {
        exchange(address, REQUEST).await
    }

    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        tokio::time::timeout(TEST_TIMEOUT, exchange).await.expect("an answer")
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_a_request_out() {
        let address = start().await;
        let mut silent = Vec::new();
        for _ in 0..4 * MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        for _ in 0..10 {
            assert!(request(address).await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn options_and_hosts_are_handled_as_on_the_public_server() {
        let address = start().await;
        for (request, status) in [
            ("OPTIONS / HTTP/1.0\r\n\r\n", "204"),
            ("OPTIONS /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "204"),
            ("GET /livez HTTP/1.0\r\n\r\n", "200"),
            ("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
            ("GET /livez HTTP/1.1\r\nhost: x\r\nhost: x\r\nconnection: close\r\n\r\n", "400"),
            ("GET /livez HTTP/1.1\nhost: x\r\nconnection: close\r\n\r\n", "400"),
        ] {
            let answer = exchange(address, request.as_bytes()).await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{request:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn idle_connection_is_closed_before_and_after_a_request() {
        let address = start().await;
        for first in [&b""[..], b"GET /liv", b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(first).await.unwrap();
            let started = Instant::now();
            let mut answer = Vec::new();
            let closed = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer)).await;
            // A reset counts as closed: the server had unread bytes.
            closed.expect("the connection is closed").ok();
            assert!(started.elapsed() >= IDLE_TIMEOUT - Duration::from_millis(100), "{:?}", started.elapsed());
        }
    }
}
