//! The routes of HLS. They serve what [`HlsRequest::parse`] leaves to the router: percent-encoded
//! paths, and HEAD.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;

use crate::http::media::hls::path::HlsPath;
use crate::http::media::hls::request::HlsRequest;
use crate::http::media::hls::response::respond;
use crate::http::serve::client::Client;
use crate::http::state::AppState;

/// Routes of playlists, initialization segments, segments and parts.
pub(in crate::http) fn routes() -> Router<AppState> {
    Router::new()
        .route("/{app}/streams/{file}", get(flat_playlist))
        .route("/{app}/streams/{id}/{file}", get(nested_playlist))
        .route("/{app}/streams/{id}/{started_at_ms}/{name}", get(resource))
}

async fn flat_playlist(
    State(state): State<AppState>,
    Path((app, file)): Path<(String, String)>,
    request: Request,
) -> Response {
    let path = HlsPath::FlatPlaylist { app: &app, file: &file };
    respond(&state, HlsRequest::new(path, &request, Client::of(request.extensions()))).await
}

async fn nested_playlist(
    State(state): State<AppState>,
    Path((app, id, file)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let path = HlsPath::NestedPlaylist { app: &app, id: &id, file: &file };
    respond(&state, HlsRequest::new(path, &request, Client::of(request.extensions()))).await
}

async fn resource(
    State(state): State<AppState>,
    Path((app, id, started_at_ms, name)): Path<(String, String, String, String)>,
    request: Request,
) -> Response {
    let path = HlsPath::Resource { app: &app, id: &id, started_at_ms: &started_at_ms, name: &name };
    respond(&state, HlsRequest::new(path, &request, Client::of(request.extensions()))).await
}
