//! WHEP over HTTP: SDP offers in, answers out (draft-ietf-wish-whep-02).

use axum::Router;

use super::State;

/// Offers, and the end of sessions.
pub(crate) fn routes() -> Router<State> {
    Router::new()
}
