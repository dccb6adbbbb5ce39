//! The list of all REST resources, and their router.

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

use super::{apps, broadcast_tokens, broadcasts, cluster, nodes, openapi, streams, tokens};
use crate::http::auth;
use crate::http::state::AppState;

/// The routes of every resource and of the OpenAPI document.
pub(in crate::http) fn routes() -> Router<AppState> {
    let (router, document) = openapi::document(resources());
    router.merge(openapi::routes(&document))
}

pub(super) fn resources() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(streams::routes())
        .merge(nodes::routes())
        .merge(broadcasts::routes())
        .merge(broadcast_tokens::routes())
        .merge(apps::routes())
        .merge(tokens::routes())
        .merge(auth::routes())
        .merge(cluster::routes())
}
