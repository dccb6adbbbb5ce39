//! REST: what is live, and what this node is. The shapes are `headwater_api::status` and `headwater_api::node`.

use axum::extract::{Path, State as Extract};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use headwater_api::StreamName;
use serde::Serialize;

use super::State;
use super::error::{Code, Problem};

/// Streams, this node, and its version.
pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/rest/v2/streams", get(streams))
        .route("/rest/v2/streams/{app}/{id}", get(stream))
        .route("/rest/v2/node", get(node))
        .route("/rest/v2/version", get(version))
}

/// What this node is, as its pages show it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Node {
    /// Its name in the cluster.
    pub id: String,
    /// Version of the engine.
    pub version: String,
    /// All apps, sorted.
    pub apps: Vec<String>,
    /// TCP port of RTMP.
    pub rtmp_port: u16,
    /// TCP port of RTMPS, if it is open.
    pub rtmps_port: Option<u16>,
}

/// The version, in the shape of Ant Media's v2.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    /// Version of the engine.
    pub version_name: &'static str,
    /// Always "Headwater".
    pub version_type: &'static str,
}

/// JSON that no cache may keep.
pub(super) fn live(body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The name in a path, or what is wrong with it.
pub(super) fn name(app: &str, id: &str) -> Result<StreamName, Problem> {
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, e.to_string()))
}

async fn streams(Extract(state): Extract<State>) -> Response {
    live(state.hub.streams().iter().map(|s| s.status()).collect::<Vec<_>>())
}

async fn stream(Extract(state): Extract<State>, Path((app, id)): Path<(String, String)>) -> Result<Response, Problem> {
    let name = name(&app, &id)?;
    if !state.apps.contains(name.app()) {
        return Err(Problem::new(Code::AppNotFound, format!("There is no app {}.", name.app())));
    }
    let stream = state.hub.stream(&name).ok_or_else(|| Problem::stream_not_found(&name))?;
    Ok(live(stream.status()))
}

async fn node(Extract(state): Extract<State>) -> Response {
    live(Node {
        id: state.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        apps: state.apps.names().map(str::to_owned).collect(),
        rtmp_port: state.endpoints.rtmp.port(),
        rtmps_port: state.endpoints.rtmps.map(|address| address.port()),
    })
}

async fn version() -> Response {
    live(Version { version_name: env!("CARGO_PKG_VERSION"), version_type: "Headwater" })
}
