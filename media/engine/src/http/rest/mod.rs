//! REST: one file per resource, and the OpenAPI document of them all. Bodies are types of
//! `headwater_api`.
//!
//! A resource is added to [`resources`] with `routes!`, so that its routes and its documentation
//! come from the same annotation.

mod broadcasts;
pub(crate) mod cluster;
pub(crate) mod nodes;
mod openapi;
mod streams;

use axum::Json;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use headwater_api::StreamName;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

use super::error::{Code, Problem};
use crate::http::{AppState, auth};

/// The routes of every resource and of the OpenAPI document.
pub(super) fn routes() -> Router<AppState> {
    let (router, document) = openapi::document(resources());
    router.merge(openapi::routes(&document))
}

fn resources() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(streams::routes())
        .merge(nodes::routes())
        .merge(broadcasts::routes())
        .merge(auth::routes())
        .merge(cluster::routes())
}

/// A JSON response that caches must not store.
pub(super) fn uncached_json(body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Parses the stream name in a path.
pub(super) fn parse_name(app: &str, id: &str) -> Result<StreamName, Problem> {
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

/// Fails unless the app exists.
fn require_app(state: &AppState, app: &str) -> Result<(), Problem> {
    Ok(state.access.check_app(app)?)
}

#[cfg(test)]
#[path = "rest_test.rs"]
mod tests;
