//! Routes requests of the public web server to their handlers.

use axum::{Router, middleware};

use crate::http::error::{Code, Problem};
use crate::http::media::{hls, whep};
use crate::http::pages::routes;
use crate::http::state::AppState;
use crate::http::{auth, rest};

/// All paths of the public web server.
pub(crate) fn router(state: AppState) -> Router {
    // Every route added here requires the administrator for methods that change something.
    let rest = Router::new()
        .merge(rest::routes())
        .route_layer(middleware::from_fn_with_state(state.clone(), auth::require_administrator));
    Router::new()
        .merge(hls::routes())
        .merge(whep::routes())
        .merge(rest)
        .merge(routes::routes())
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
