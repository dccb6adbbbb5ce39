//! REST: one file per resource, and the OpenAPI document of them all. Bodies are types of `headwater_api`.
//!
//! A resource adds itself to [`resources`] with `routes!`: what answers is what the document says, both come from the same
//! annotation.

mod broadcasts;
mod node;
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
use super::{State, auth, cluster};

/// Every resource, and the document.
pub(super) fn routes() -> Router<State> {
    let (router, document) = openapi::document(resources());
    router.merge(openapi::routes(&document))
}

fn resources() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .merge(streams::routes())
        .merge(node::routes())
        .merge(broadcasts::routes())
        .merge(auth::routes())
        .merge(cluster::routes())
}

/// JSON that no cache may keep.
pub(super) fn live(body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The name in a path, or what is wrong with it.
pub(super) fn name(app: &str, id: &str) -> Result<StreamName, Problem> {
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

/// Refuses what is no app.
fn known_app(state: &State, app: &str) -> Result<(), Problem> {
    if state.apps.contains(app) { Ok(()) } else { Err(Problem::new(Code::AppNotFound, "There is no such app.")) }
}

#[cfg(test)]
#[path = "rest_test.rs"]
mod tests;
