//! Sorts requests to the rooms that answer them.

use axum::{Router, middleware};

use super::error::{Code, Problem};
use super::state::State;
use super::{auth, hls, pages, rest, whep};

/// All paths of the public web server.
pub(super) fn router(state: State) -> Router {
    // Whatever is added here and changes something is the administrator's alone.
    let rest =
        Router::new().merge(rest::routes()).route_layer(middleware::from_fn_with_state(state.clone(), auth::guard));
    Router::new()
        .merge(hls::routes())
        .merge(whep::routes())
        .merge(rest)
        .merge(pages::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "There is nothing at this address.")
}

async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "This address does not take this method.")
}
