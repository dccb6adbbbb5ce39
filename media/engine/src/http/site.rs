//! What a server answers with: a router, and in front of it what is asked for too often to go that way.

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

use super::connection::{Encrypted, Peer};
use super::hls;
use super::patience::Phase;
use super::router::router;
use super::state::State;

/// All that one server has to say.
#[derive(Debug)]
pub struct Site {
    router: Router,
    hls: Option<State>,
}

impl Site {
    /// The public web server's.
    pub fn of(state: State) -> Self {
        Self { router: router(state.clone()), hls: Some(state) }
    }

    /// Answers on a connection as long as that can be done in short ([`hls::plain`]). Gives what has been read of the first
    /// request that cannot; `None` if the connection has ended.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) async fn answer_plain<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut T,
        phase: &Phase,
        peer: SocketAddr,
        drain: &CancellationToken,
    ) -> io::Result<Option<Vec<u8>>> {
        match &self.hls {
            Some(state) => hls::plain::serve(stream, phase, state, peer, drain).await,
            None => Ok(Some(Vec::new())),
        }
    }

    /// The answer to a request that came from `peer`.
    pub(super) async fn answer(
        self: Arc<Self>,
        mut request: hyper::Request<Incoming>,
        peer: SocketAddr,
        encrypted: bool,
    ) -> Response {
        if let Some(state) = self.hls.as_ref().filter(|_| hls::is_plain(&request)) {
            return hls::answer_plain(state, request, peer).await;
        }
        request.extensions_mut().insert(Peer(peer));
        if encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        let answer: Result<Response, Infallible> = self.router.clone().call(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

impl From<Router> for Site {
    fn from(router: Router) -> Self {
        Self { router, hls: None }
    }
}
