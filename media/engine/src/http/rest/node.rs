//! `/rest/v2/node` and the version: what this node is, as its pages and other programs ask.

use axum::extract::{Path, State as Extract};
use axum::response::{IntoResponse, Response};
use headwater_api::broadcast::Refusal;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::State;
use super::broadcasts::Refused;
use super::{known_app, live};

pub(super) fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(node)).routes(routes!(version)).routes(routes!(version_of_app))
}

/// What this node is.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
struct Node {
    /// Its name in the cluster.
    id: String,
    /// Version of the engine.
    version: String,
    /// All apps, sorted.
    apps: Vec<String>,
    /// TCP port of RTMP.
    rtmp_port: u16,
    /// TCP port of RTMPS, if it is open.
    rtmps_port: Option<u16>,
}

/// The version, in the shape of Ant Media's v2.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Version of the engine.
    version_name: &'static str,
    /// Always "Headwater".
    version_type: &'static str,
}

/// What this node is.
#[utoipa::path(get, path = "/rest/v2/node", tag = "node", responses((status = 200, body = Node)))]
async fn node(Extract(state): Extract<State>) -> Response {
    live(Node {
        id: state.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        apps: state.apps.names(),
        rtmp_port: state.endpoints.rtmp.port(),
        rtmps_port: state.endpoints.rtmps.map(|address| address.port()),
    })
}

/// The version of the engine.
#[utoipa::path(get, path = "/rest/v2/version", tag = "node", responses((status = 200, body = Version)))]
async fn version() -> Response {
    live(Version { version_name: env!("CARGO_PKG_VERSION"), version_type: "Headwater" })
}

/// The version of the engine, asked of an app.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/version",
    tag = "node",
    params(("app" = String, Path, description = "App")),
    responses((status = 200, body = Version), (status = 404, description = "`app_not_found`", body = Refusal))
)]
async fn version_of_app(Extract(state): Extract<State>, Path(app): Path<String>) -> Response {
    match known_app(&state, &app) {
        Ok(()) => version().await,
        Err(problem) => Refused(problem).into_response(),
    }
}
