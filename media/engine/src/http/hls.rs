//! HLS and LL-HLS over HTTP: paths and query in, shared bytes out.

use axum::Router;

use super::State;

/// Playlists, init sections, segments and parts.
pub(crate) fn routes() -> Router<State> {
    Router::new()
}
