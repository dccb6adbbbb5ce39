//! The service of a server: a router, and shortcuts past it for frequent requests.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::http::media::hls::request::HlsRequest;
use crate::http::media::hls::response;
use crate::http::serve::fast_path;
use crate::http::serve::peer::{Encrypted, Peer};
use crate::http::serve::router::router;
use crate::http::serve::timeout::RequestPhase;
use crate::http::state::AppState;

/// The content of one server: a router, and for the public server also the fast path.
#[derive(Debug)]
pub struct HttpService {
    router: Router,
    hls: Option<AppState>,
}

impl HttpService {
    /// The service of the public web server.
    pub fn new(state: AppState) -> Self {
        Self { router: router(state.clone()), hls: Some(state) }
    }

    /// Runs a connection on the [fast path](super::fast_path) as long as that supports its
    /// requests. Returns the bytes read of the first unsupported request, or `None` if the
    /// connection has ended.
    ///
    /// # Errors
    /// I/O errors of the stream.
    pub(crate) async fn serve_fast_path<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut T,
        phase: &RequestPhase,
        peer: SocketAddr,
        drain: &CancellationToken,
    ) -> io::Result<Option<Vec<u8>>> {
        match &self.hls {
            Some(state) => fast_path::serve(stream, phase, state, peer, drain).await,
            None => Ok(Some(Vec::new())),
        }
    }

    /// Responds to one request of `peer`.
    pub(crate) async fn respond(
        self: Arc<Self>,
        mut request: hyper::Request<Incoming>,
        peer: SocketAddr,
        encrypted: bool,
    ) -> Response {
        if let Some(state) = &self.hls
            && let Some(request) = HlsRequest::parse(&request, peer)
        {
            return response::respond(state, request).await;
        }
        request.extensions_mut().insert(Peer(peer));
        if encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        let answer: Result<Response, Infallible> = self.router.clone().call(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

impl From<Router> for HttpService {
    fn from(router: Router) -> Self {
        Self { router, hls: None }
    }
}
