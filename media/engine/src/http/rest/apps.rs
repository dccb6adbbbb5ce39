//! `/rest/v2/apps`: the settings of apps. Only for the administrator: they contain the publish key.
//!
//! A change states the revision that it is based on, so that two administrators do not overwrite
//! each other's changes. It is in force on every node within five seconds.

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use headwater_api::documents::AppDocument;
use headwater_api::error::ErrorBody;
use headwater_api::name;
use headwater_api::rest::{AppConflict, AppSettings};
use headwater_registry::{Apps as _, RegistryError, Tokens as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::uncached_json;
use super::json_body::JsonBody;
use super::registry_call::{ask, unreachable, within_timeout};
use crate::http::auth::Administrator;
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_app, put_app, delete_app))
}

/// Lists the settings of all apps, sorted by name.
#[utoipa::path(
    get,
    path = "/rest/v2/apps",
    tag = "apps",
    responses(
        (status = 200, body = Vec<AppSettings>),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn list(Extract(state): Extract<AppState>, _: Administrator) -> Result<Response, Problem> {
    let apps = ask(state.registry.apps()).await?;
    Ok(uncached_json(apps.iter().map(AppSettings::from).collect::<Vec<_>>()))
}

/// Returns the settings of an app.
#[utoipa::path(
    get,
    path = "/rest/v2/apps/{app}",
    tag = "apps",
    params(("app" = String, Path, description = "App")),
    responses(
        (status = 200, body = AppSettings),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn get_app(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let found = find(&state, &app).await?.ok_or_else(not_found)?;
    Ok(uncached_json(AppSettings::from(&found)))
}

/// Changes the settings of an app, or creates it with revision 0. If the revision is not the
/// current one, nothing changes, and the response has the current settings.
#[utoipa::path(
    put,
    path = "/rest/v2/apps/{app}",
    tag = "apps",
    params(("app" = String, Path, description = "App")),
    request_body = AppSettings,
    responses(
        (status = 200, body = AppSettings),
        (status = 400, description = "`bad_request`, `invalid_app`", body = ErrorBody),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`: it was removed", body = ErrorBody),
        (status = 409, description = "`app_changed`", body = AppConflict),
        (status = 413, description = "`body_too_large`: more than 256 KiB", body = ErrorBody),
        (status = 415, description = "`wrong_content_type`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn put_app(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
    JsonBody(settings): JsonBody<AppSettings>,
) -> Result<Response, Problem> {
    if settings.name != app {
        return Err(Problem::new(Code::BadRequest, "The name in the body differs from that in the path."));
    }
    let current = find(&state, &app).await?;
    let is_new = current.is_none();
    if is_new && settings.revision != 0 {
        return Err(not_found());
    }
    let current = current.unwrap_or_else(|| AppDocument::open(&app));
    let changed = settings.apply_to(&current);
    changed.validate().map_err(|e| Problem::new(Code::InvalidApp, format!("The settings are wrong: {e}.")))?;
    // If `current` has another revision, the registry refuses: secrets that the settings leave out
    // are always those of the revision that they are based on.
    match within_timeout(state.registry.put_app(&changed)).await? {
        Ok(written) => {
            log::info!(app = app.as_str(), revision = written.revision; "app changed");
            state.access.reload();
            Ok(uncached_json(AppSettings::from(&written)))
        }
        Err(RegistryError::Changed { current: Some(current), .. }) => Ok(conflict(&current)),
        Err(RegistryError::Changed { current: None, .. }) => Err(not_found()),
        Err(e) => Err(unreachable(e)),
    }
}

/// Removes an app. Its streams end.
#[utoipa::path(
    delete,
    path = "/rest/v2/apps/{app}",
    tag = "apps",
    params(("app" = String, Path, description = "App")),
    responses(
        (status = 204),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn delete_app(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    if name::check_app(&app).is_err() || !ask(state.registry.remove_app(&app)).await? {
        return Err(not_found());
    }
    // An app that is created under the same name again accepts none of them.
    let revoked = ask(state.registry.revoke_tokens(&app, None)).await?;
    log::info!(app = app.as_str(), tokens = revoked; "app removed");
    state.access.reload();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The app of this name in the registry, which may know it a moment before this node does.
pub(super) async fn find(state: &AppState, app: &str) -> Result<Option<AppDocument>, Problem> {
    if name::check_app(app).is_err() {
        return Ok(None);
    }
    Ok(ask(state.registry.apps()).await?.into_iter().find(|found| found.name == app))
}

pub(super) fn not_found() -> Problem {
    Problem::fixed(Code::AppNotFound, "There is no such app.")
}

fn conflict(current: &AppDocument) -> Response {
    let body = AppConflict {
        error: Code::AppChanged.as_str().to_owned(),
        message: "Somebody else has changed this app; these are its current settings.".to_owned(),
        current: AppSettings::from(current),
    };
    let mut response = uncached_json(body);
    *response.status_mut() = Code::AppChanged.status();
    response
}
