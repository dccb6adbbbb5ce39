//! `/livez` and `/readyz` of a registry node, which has no engine to serve them: HTTP/1.1, one
//! request per connection.
//!
//! Only reads what the tasks of the node report; `readiness.rs` decides what follows from it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_api::error::{Chain, ErrorBody};
use headwater_program::free_space::check_free_space;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::registry_node::readiness::{self, NodeStatus, Readiness};
use crate::registry_node::reconciler::DatabaseStatus;

/// Maximum number of connections; a further one replaces the oldest, which needs milliseconds if it
/// sends its request.
const MAX_CONNECTIONS: usize = 64;
/// For the whole of a connection: one request and its response.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// The health listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address} for health")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// An open health listener.
#[derive(Debug)]
pub(crate) struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the checks are made of.
#[derive(Debug, Clone)]
pub(crate) struct HealthSource {
    /// What the tasks of the node report.
    pub node_rx: watch::Receiver<NodeStatus>,
    /// The status of its database.
    pub database_rx: watch::Receiver<DatabaseStatus>,
    /// The data folder, and the megabytes that must be free in it.
    pub disk: (PathBuf, u32),
}

impl HealthSource {
    fn readiness(&self) -> Readiness {
        let disk = check_free_space(&self.disk.0, self.disk.1);
        readiness::evaluate(&self.node_rx.borrow(), &self.database_rx.borrow(), disk, Instant::now())
    }

    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match path {
            // Some load balancers check their servers with this method.
            _ if method == Method::OPTIONS => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            "/livez" => Response::new(Full::from("alive\n")),
            "/readyz" => {
                let readiness = self.readiness();
                let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &readiness)
            }
            _ => json(
                StatusCode::NOT_FOUND,
                &ErrorBody {
                    error: "not_found".to_owned(),
                    message: "The paths are /livez and /readyz.".to_owned(),
                    alternative_url: None,
                },
            ),
        }
    }
}

impl HealthServer {
    /// Listens on `address`. `[::]` also accepts IPv4, and falls back to `0.0.0.0` on a host
    /// without IPv6.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = match TcpListener::bind(address).await {
            Err(e) if e.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) && address.ip().is_unspecified() => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            result => result,
        };
        let opened = listener.and_then(|listener| Ok(Self { address: listener.local_addr()?, listener }));
        opened.map_err(|source| ListenError { address, source })
    }

    /// The address it listens on.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped, with all its connections.
    pub(crate) async fn run(self, source: HealthSource) -> Infallible {
        let (mut connections, mut oldest_first) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        oldest_first.retain(|connection| !connection.is_finished());
                        if oldest_first.len() >= MAX_CONNECTIONS
                            && let Some(oldest) = oldest_first.pop_front()
                        {
                            oldest.abort();
                        }
                        oldest_first.push_back(connections.spawn(serve(stream, source.clone())));
                    }
                    Err(e) => {
                        log::warn!(err:% = Chain(&e); "could not accept a health connection");
                        tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Serves one request. A client that fails or is slow is not an error.
async fn serve(stream: TcpStream, source: HealthSource) {
    let service = service_fn(|request: Request<_>| {
        let response = source.respond(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    // Maps with text keys can always be written.
    let mut response = Response::new(Full::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// After a failed accept, for example without a free file descriptor.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client;
    use crate::registry_node::reconciler::DatabaseState;

    #[tokio::test]
    async fn readyz_follows_the_state_of_the_node() {
        let (node_tx, node_rx) = watch::channel(NodeStatus::default());
        let (database_tx, database_rx) = watch::channel(DatabaseStatus::unknown());
        let server = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr();
        let source = HealthSource { node_rx, database_rx, disk: (std::env::temp_dir(), 0) };
        let requests = async {
            let get = async |path: &str| {
                let answer = http_client::get(address, path, Duration::from_secs(5)).await.unwrap();
                let body = String::from_utf8(answer.body().to_vec()).unwrap();
                (answer.status().as_u16(), body)
            };
            assert_eq!(get("/livez").await, (200, "alive\n".to_owned()));
            let (status, body) = get("/readyz").await;
            let readiness: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &readiness["ready"]), (503, &false.into()));
            assert_eq!(readiness["checks"]["mongod"], "has not been started yet");
            node_tx.send_modify(|node| {
                (node.secrets, node.mongod) = (Ok(()), Ok(()));
                node.on_write(Instant::now());
            });
            database_tx.send_modify(|database| database.state = DatabaseState::Member { primary: true });
            let (status, body) = get("/readyz").await;
            let readiness: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &readiness["ready"]), (200, &true.into()), "{readiness}");
            assert_eq!(get("/metrics").await.0, 404);
            let mut options = Request::new(http_body_util::Empty::new());
            *options.method_mut() = Method::OPTIONS;
            let answer = http_client::fetch(address, options, Duration::from_secs(5)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        };
        tokio::select! {
            () = requests => {}
            never = server.run(source) => match never {},
        }
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_a_request_out() {
        let server = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr();
        let (node_rx, database_rx) =
            (watch::channel(NodeStatus::default()).1, watch::channel(DatabaseStatus::unknown()).1);
        let source = HealthSource { node_rx, database_rx, disk: (std::env::temp_dir(), 0) };
        let requests = async {
            let mut silent = Vec::new();
            for _ in 0..2 * MAX_CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            // Shorter than the time after which the server closes the silent connections.
            let answer = http_client::get(address, "/livez", CONNECTION_TIMEOUT / 2).await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
        };
        tokio::select! {
            () = requests => {}
            never = server.run(source) => match never {},
        }
    }

    #[tokio::test]
    async fn address_in_use_is_named() {
        let first = HealthServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = HealthServer::bind(first.local_addr()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("could not listen on {} for health", first.local_addr()));
    }
}
