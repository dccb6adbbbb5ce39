//! What a server answers with: a router, and in front of it what is asked for too often to go that way.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use tower::Service as _;

use super::connection::{Encrypted, Peer};
use super::hls;
use super::router::router;
use super::state::State;

/// All that one server has to say; clones share it.
#[derive(Debug, Clone)]
pub struct Site {
    router: Router,
    hls: Option<State>,
}

impl Site {
    /// The public web server's.
    pub fn of(state: State) -> Self {
        Self { router: router(state.clone()), hls: Some(state) }
    }

    /// The answer to a request that came from `peer`.
    pub(super) async fn answer(
        self,
        mut request: hyper::Request<Incoming>,
        peer: SocketAddr,
        encrypted: bool,
    ) -> Response {
        let Self { mut router, hls } = self;
        if let Some(state) = hls.filter(|_| hls::is_plain(&request)) {
            return hls::answer_plain(state, request, peer).await;
        }
        request.extensions_mut().insert(Peer(peer));
        if encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        let answer: Result<Response, Infallible> = router.call(request).await;
        answer.unwrap_or_else(|never| match never {})
    }
}

impl From<Router> for Site {
    fn from(router: Router) -> Self {
        Self { router, hls: None }
    }
}
