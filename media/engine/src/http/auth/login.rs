//! `/rest/v2/session`: log in, log out, and query the session.

use axum::extract::State as Extract;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_api::documents::{ADMINISTRATOR, Rights};
use headwater_api::error::ErrorBody;
use headwater_api::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{Caller, now_s};
use super::cookie::{may_have_session, session_cookie, set_session_cookie};
use super::https_url::https_url;
use super::session::LIFETIME_S;
use crate::http::error::{Code, Problem};
use crate::http::rest::json::uncached_json;
use crate::http::serve::body::SmallBody;
use crate::http::serve::client::Client;
use crate::http::state::AppState;

/// Path of the session resource.
pub(super) const PATH: &str = "/rest/v2/session";

/// Routes of the session resource.
pub(in crate::http) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_session, log_in, log_out))
}

/// The body of a login request.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(in crate::http) struct Credentials {
    /// User name; `admin` if omitted.
    #[serde(default)]
    pub name: Option<String>,
    /// The password.
    #[schema(value_type = String)]
    pub password: Secret,
}

/// The user and session of the caller.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SessionStatus {
    /// User name; absent without a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// True if the caller is an administrator.
    pub administrator: bool,
    /// End of the session: Unix time, in milliseconds; absent without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// True if the caller may log in over this connection: it is encrypted, or the caller is a
    /// program of the same machine.
    pub may_log_in: bool,
    /// Where to log in instead (`https://HOST:5443/`); absent if the caller may log in over this
    /// connection, or if HTTPS is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_url: Option<String>,
}

impl SessionStatus {
    fn new(client: Client, state: &AppState, headers: &HeaderMap) -> Self {
        let may_log_in = may_have_session(client);
        let https_url = if may_log_in { None } else { https_url(state, headers) };
        Self { name: None, administrator: false, expires_at_ms: None, may_log_in, https_url }
    }
}

/// Returns the user and session of the caller.
#[utoipa::path(get, tag = "administrator", path = "/rest/v2/session",
    responses(
        (status = 200, body = SessionStatus),
        (status = 401, description = "`wrong_password`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(in crate::http) async fn get_session(Extract(state): Extract<AppState>, caller: Caller, parts: Parts) -> Response {
    uncached_json(SessionStatus {
        name: caller.name().map(str::to_owned),
        administrator: caller.is_administrator(),
        expires_at_ms: caller.expires_s.map(|s| s * 1_000),
        ..SessionStatus::new(Client::of(&parts.extensions), &state, &parts.headers)
    })
}

/// Logs in: the response sets a cookie that is valid on every node of the cluster.
#[utoipa::path(post, tag = "administrator", path = "/rest/v2/session", request_body = Credentials,
    responses(
        (status = 200, body = SessionStatus),
        (status = 400, description = "`bad_request`", body = ErrorBody),
        (status = 401, description = "`wrong_password`", body = ErrorBody),
        (status = 403, description = "`https_required`, `cross_origin`", body = ErrorBody),
        (status = 413, description = "`body_too_large`", body = ErrorBody),
        (status = 415, description = "`wrong_content_type`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(in crate::http) async fn log_in(
    Extract(state): Extract<AppState>,
    parts: Parts,
    SmallBody(body): SmallBody,
) -> Result<Response, Problem> {
    let client = Client::of(&parts.extensions);
    if !may_have_session(client) {
        return Err(https_required(https_url(&state, &parts.headers)));
    }
    let json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !json {
        // An HTML form of another origin can send other content types without a CORS preflight.
        return Err(Problem::fixed(Code::WrongContentType, "Log in with a body of application/json."));
    }
    let Ok(Credentials { name, password }) = serde_json::from_slice(&body) else {
        // Omit the cause: it could quote the password.
        return Err(Problem::fixed(Code::BadRequest, "The body is not {\"name\": …, \"password\": …}."));
    };
    let name = name.as_deref().unwrap_or(ADMINISTRATOR);
    let from = client.address;
    let user = state.accounts.by_password(from, name, password).await?;
    let (value, expires_s) = state.accounts.begin_session(&user, now_s());
    log::info!(user = user.name.as_str(), peer:% = from; "logged in");
    let mut response = uncached_json(SessionStatus {
        name: Some(user.name.clone()),
        administrator: user.rights == Rights::Administer,
        expires_at_ms: Some(expires_s * 1_000),
        ..SessionStatus::new(client, &state, &parts.headers)
    });
    set_session_cookie(&mut response, &value, LIFETIME_S, client);
    Ok(response)
}

/// The refusal of a login whose password anybody on the network could have read.
fn https_required(https_url: Option<String>) -> Problem {
    Problem::new(
        Code::HttpsRequired,
        match https_url {
            Some(url) => format!("Logging in requires HTTPS: open {url} instead."),
            None => "Logging in requires HTTPS, and this node has no HTTPS address for this request.".to_owned(),
        },
    )
}

/// Logs out: ends the session on every node, and removes the cookie.
#[utoipa::path(delete, tag = "administrator", path = "/rest/v2/session",
    responses((status = 204), (status = 403, description = "`cross_origin`", body = ErrorBody)))]
pub(in crate::http) async fn log_out(Extract(state): Extract<AppState>, parts: Parts) -> Response {
    let client = Client::of(&parts.extensions);
    if let Some(cookie) = session_cookie(&parts.headers, client) {
        state.accounts.end_session(cookie, now_s()).await;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_session_cookie(&mut response, "", 0, client);
    response
}

#[cfg(test)]
#[path = "login_test.rs"]
mod tests;
