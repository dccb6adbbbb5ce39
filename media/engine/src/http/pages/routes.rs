//! The paths of the pages.

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::State;
use crate::http::error::{Code, Problem};
use crate::http::pages::assets;

/// The dashboard, the pages of each app, and their files.
pub(crate) fn routes() -> Router<State> {
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

async fn publish(Extract(state): Extract<State>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    of_app(&state, &app, "publish.html", &headers)
}

async fn play(Extract(state): Extract<State>, Path(app): Path<String>, headers: HeaderMap) -> Response {
    of_app(&state, &app, "play.html", &headers)
}

fn of_app(state: &State, app: &str, page: &str, headers: &HeaderMap) -> Response {
    if state.apps.contains(app) {
        assets::page(page, headers)
    } else {
        Problem::new(Code::AppNotFound, "There is no such app.").into_response()
    }
}
