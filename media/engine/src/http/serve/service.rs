//! The service of a server: a router, and shortcuts past it for frequent requests.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::http::media::hls::request::HlsRequest;
use crate::http::media::hls::response;
use crate::http::serve::client::{Client, ClientResolver, Encryption};
use crate::http::serve::cors::{CorsPolicy, Readers, respond_to_options};
use crate::http::serve::fast_path;
use crate::http::serve::host::check_host;
use crate::http::serve::router::router;
use crate::http::serve::timeout::RequestPhase;
use crate::http::state::AppState;

/// The browser uses HTTPS only for this host name for a year (RFC 6797). Never sent with a
/// self-signed certificate: the browser would then no longer let a user accept it.
const HSTS: &str = "max-age=31536000";

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
        clients: &ClientResolver,
        drain: &CancellationToken,
    ) -> io::Result<Option<Vec<u8>>> {
        match &self.hls {
            Some(state) => fast_path::serve(stream, phase, state, clients, drain).await,
            None => Ok(Some(Vec::new())),
        }
    }

    /// Responds to one request of a connection.
    pub(crate) async fn respond(
        self: Arc<Self>,
        mut request: hyper::Request<Incoming>,
        clients: ClientResolver,
    ) -> Response {
        let readers = self.readers(&request);
        let client = clients.resolve_headers(request.headers());
        let mut response = match respond_without_handler(&request) {
            Some(response) => response,
            None => {
                request.extensions_mut().insert(client);
                self.route(request, client).await
            }
        };
        if let Some(readers) = readers {
            readers.add_to(response.headers_mut());
        }
        if client.encryption == Encryption::Certified {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
        }
        response
    }

    /// Which pages may read the response, if not only those of this server.
    fn readers<B>(&self, request: &hyper::Request<B>) -> Option<Readers> {
        let path = request.uri().path();
        let policy = CorsPolicy::of(path)?;
        let origin = request.headers().get(header::ORIGIN).map(HeaderValue::as_bytes);
        Some(self.hls.as_ref().map_or(Readers::Any, |state| policy.readers(&state.access, path, origin)))
    }

    async fn route(&self, request: hyper::Request<Incoming>, client: Client) -> Response {
        if let Some(state) = &self.hls
            && let Some(request) = HlsRequest::parse(&request, client)
        {
            return response::respond(state, request).await;
        }
        let answer: Result<Response, Infallible> = self.router.clone().call(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

/// The response to a request that reaches no handler: one with an invalid `Host`, and OPTIONS.
pub(in crate::http) fn respond_without_handler<B>(request: &hyper::Request<B>) -> Option<Response> {
    if let Err(problem) = check_host(request.version(), request.uri(), request.headers()) {
        return Some(problem.into_response());
    }
    (request.method() == Method::OPTIONS).then(|| respond_to_options(CorsPolicy::of(request.uri().path())))
}

impl From<Router> for HttpService {
    fn from(router: Router) -> Self {
        Self { router, hls: None }
    }
}

#[cfg(test)]
#[path = "service_test.rs"]
mod tests;
