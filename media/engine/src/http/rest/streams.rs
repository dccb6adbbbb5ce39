//! `/rest/v2/streams`: live streams of this node in full detail.

use axum::extract::{Path, State as Extract};
use axum::response::Response;
use headwater_api::error::ErrorBody;
use headwater_api::rest::StreamStatus;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::{parse_name, require_app};
use super::json::uncached_json;
use crate::http::error::Problem;
use crate::http::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(streams)).routes(routes!(stream))
}

/// All live streams of this node, sorted by name.
#[utoipa::path(get, path = "/rest/v2/streams", tag = "streams", responses((status = 200, body = Vec<StreamStatus>)))]
async fn streams(Extract(state): Extract<AppState>) -> Response {
    uncached_json(state.hub.streams().iter().map(|s| s.status()).collect::<Vec<_>>())
}

/// One live stream.
#[utoipa::path(
    get,
    path = "/rest/v2/streams/{app}/{id}",
    tag = "streams",
    params(("app" = String, Path, description = "App"), ("id" = String, Path, description = "Stream id")),
    responses(
        (status = 200, body = StreamStatus),
        (status = 400, description = "`bad_request`: not a valid stream name", body = ErrorBody),
        (status = 404, description = "`app_not_found`, `stream_not_found`", body = ErrorBody),
    )
)]
async fn stream(
    Extract(state): Extract<AppState>,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let name = parse_name(&app, &id)?;
    require_app(&state, &app)?;
    let stream = state.hub.stream(&name).ok_or_else(|| Problem::stream_not_found(&name))?;
    Ok(uncached_json(stream.status()))
}
