//! Sorts requests to the rooms that answer them.

use axum::Router;

use super::error::{Code, Problem};
use super::state::State;
use super::{hls, pages, rest, whep};

/// All paths of the public web server.
pub fn router(state: State) -> Router {
    Router::new()
        .merge(hls::routes())
        .merge(whep::routes())
        .merge(rest::routes())
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
