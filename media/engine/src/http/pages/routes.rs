//! The paths of the pages.

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::error::Problem;
use crate::http::pages::assets;
use crate::http::state::AppState;

/// The dashboard, the pages of each app, and their files.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| assets::page("index.html", &headers)))
        .route("/index.html", get(async |headers: HeaderMap| assets::page("index.html", &headers)))
        .route(
            "/favicon.ico",
            get(async |headers: HeaderMap| assets::asset(Path("icon.svg".to_owned()), headers).await),
        )
        .route("/assets/{*path}", get(assets::asset))
        .route("/{app}/", get(publish))
        .route("/{app}/index.html", get(publish))
        .route("/{app}/play.html", get(play))
        .route("/{app}/player.html", get(play))
}

async fn publish(Extract(state): Extract<AppState>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    app_page(&state, &app, "publish.html", &headers)
}

async fn play(Extract(state): Extract<AppState>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    match state.access.allowed_origins(&app) {
        Some(origins) => assets::player_for(origins.as_slice(), &headers),
        None => app_page(&state, &app, "play.html", &headers),
    }
}

fn app_page(state: &AppState, app: &str, page: &str, headers: &HeaderMap) -> Response {
    match state.access.check_app(app) {
        Ok(()) => assets::page(page, headers),
        Err(e) => Problem::from(e).into_response(),
    }
}
