//! `/rest/v2/node` and the version: identity of this node for its pages and for other programs.

use axum::extract::{Path, State as Extract};
use axum::response::{IntoResponse, Response};
use headwater_api::rest::Refusal;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::require_app;
use super::broadcasts::BroadcastError;
use super::json::uncached_json;
use crate::http::state::AppState;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(node)).routes(routes!(version)).routes(routes!(version_of_app))
}

/// Identity of a node.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
struct Node {
    /// Id of the node in the cluster.
    id: String,
    /// Version of the engine.
    version: String,
    /// All apps, sorted.
    apps: Vec<String>,
    /// TCP port of HTTPS; null if it is off.
    https_port: Option<u16>,
    /// TCP port of RTMP; null if it is off.
    rtmp_port: Option<u16>,
    /// TCP port of RTMPS; null without a certificate.
    rtmps_port: Option<u16>,
}

/// The version, in the format of Ant Media's REST v2.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Version of the engine.
    version_name: &'static str,
    /// Always "Headwater".
    version_type: &'static str,
}

/// Returns the identity of this node.
#[utoipa::path(get, path = "/rest/v2/node", tag = "node", responses((status = 200, body = Node)))]
async fn node(Extract(state): Extract<AppState>) -> Response {
    uncached_json(Node {
        id: state.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        apps: state.access.app_names(),
        https_port: state.endpoints.https.map(|address| address.port()),
        rtmp_port: state.endpoints.rtmp.map(|address| address.port()),
        rtmps_port: state.endpoints.rtmps.map(|address| address.port()),
    })
}

/// Returns the version of the engine.
#[utoipa::path(get, path = "/rest/v2/version", tag = "node", responses((status = 200, body = Version)))]
async fn version() -> Response {
    uncached_json(Version { version_name: env!("CARGO_PKG_VERSION"), version_type: "Headwater" })
}

/// Returns the version of the engine, at the path of an app.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/version",
    tag = "node",
    params(("app" = String, Path, description = "App")),
    responses((status = 200, body = Version), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn version_of_app(Extract(state): Extract<AppState>, Path(app): Path<String>) -> Response {
    match require_app(&state, &app) {
        Ok(()) => version().await,
        Err(problem) => BroadcastError(problem).into_response(),
    }
}
