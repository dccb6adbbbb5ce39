//! `/APP/rest/v2/broadcasts/ID/token` and its relatives: tokens in the format of Ant Media's REST
//! v2. Only for the administrator, also those that are read with GET.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State as Extract};
use axum::http::request::Parts;
use axum::response::Response;
use headwater_api::documents::{Grant, TokenDocument, TokenKind};
use headwater_api::error::ErrorBody;
use headwater_api::rest::{BroadcastToken, NewToken, OperationResult, Refusal};
use headwater_registry::{TokenQuery, Tokens as _};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::{parse_name, require_app};
use super::broadcasts::BroadcastError;
use super::json::uncached_json;
use super::json_body::JsonBody;
use super::made_token;
use super::registry_call::ask;
use super::tokens::page;
use crate::http::auth;
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(token))
        .routes(routes!(jwt_token))
        .routes(routes!(validate_token))
        .routes(routes!(list))
        .routes(routes!(revoke))
}

/// An administrator, whose absence is reported in the format of this API.
struct Administrator;

impl FromRequestParts<AppState> for Administrator {
    type Rejection = BroadcastError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, BroadcastError> {
        auth::Administrator::from_request_parts(parts, state).await?;
        Ok(Self)
    }
}

/// What the token permits, and until when.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct TokenParameters {
    /// Unix time of expiry, in seconds.
    expire_date: u64,
    /// The action that the token permits.
    #[serde(rename = "type")]
    #[param(inline)]
    grants: Grant,
}

type TokenQueryResult = Result<Query<TokenParameters>, QueryRejection>;

/// Makes a token that admits one client. The response is the only one that contains it.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/{id}/token",
    tag = "broadcasts",
    params(
        ("app" = String, Path, description = "App"),
        ("id" = String, Path, description = "Stream id"),
        TokenParameters,
    ),
    responses(
        (status = 200, body = BroadcastToken),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 401, description = "`unauthorized`", body = Refusal),
        (status = 403, description = "`forbidden`", body = Refusal),
        (status = 404, description = "`app_not_found`", body = Refusal),
        (status = 503, description = "`registry_unreachable`", body = Refusal),
    )
)]
async fn token(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(path): Path<(String, String)>,
    query: TokenQueryResult,
) -> Result<Response, BroadcastError> {
    make(&state, path, query, TokenKind::OneTime).await
}

/// Makes a JSON web token, which admits any number of clients until it expires. The response is the
/// only one that contains it.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/{id}/jwt-token",
    tag = "broadcasts",
    params(
        ("app" = String, Path, description = "App"),
        ("id" = String, Path, description = "Stream id"),
        TokenParameters,
    ),
    responses(
        (status = 200, body = BroadcastToken),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 401, description = "`unauthorized`", body = Refusal),
        (status = 403, description = "`forbidden`", body = Refusal),
        (status = 404, description = "`app_not_found`", body = Refusal),
        (status = 409, description = "`no_token_key`: the app has no `jwt_key`", body = Refusal),
        (status = 503, description = "`registry_unreachable`", body = Refusal),
    )
)]
async fn jwt_token(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(path): Path<(String, String)>,
    query: TokenQueryResult,
) -> Result<Response, BroadcastError> {
    make(&state, path, query, TokenKind::Jwt).await
}

/// Tells whether a token that was made here would admit a client now. It remains valid.
#[utoipa::path(
    post,
    path = "/{app}/rest/v2/broadcasts/validate-token",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App")),
    request_body = BroadcastToken,
    responses(
        (status = 200, body = OperationResult),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = Refusal),
        (status = 413, description = "`body_too_large`", body = Refusal),
        (status = 415, description = "`wrong_content_type`", body = Refusal),
        (status = 503, description = "`registry_unreachable`", body = Refusal),
    )
)]
async fn validate_token(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
    body: Result<JsonBody<BroadcastToken>, Problem>,
) -> Result<Response, BroadcastError> {
    require_app(&state, &app)?;
    let JsonBody(presented) = body?;
    let name = parse_name(&app, &presented.stream_id)?;
    let found = made_token::find(&state, &name, &presented.token_id).await?;
    let now_ms = state.hub.wall_clock().now_ms();
    let is_valid = found.is_some_and(|token| token.grants == presented.grants && is_usable(&token, now_ms));
    let message = if is_valid { "The token is valid." } else { "The token is not valid for this stream and action." };
    Ok(uncached_json(result(is_valid, message.to_owned())))
}

/// Lists the tokens of a stream that have not expired, the latest first.
#[utoipa::path(
    get,
    path = "/{app}/rest/v2/broadcasts/{id}/tokens/list/{offset}/{size}",
    tag = "broadcasts",
    params(
        ("app" = String, Path, description = "App"),
        ("id" = String, Path, description = "Stream id"),
        ("offset" = u64, Path, description = "Number of tokens to skip"),
        ("size" = u64, Path, description = "Maximum number of tokens, up to 1,000"),
    ),
    responses(
        (status = 200, body = Vec<BroadcastToken>),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 401, description = "`unauthorized`", body = Refusal),
        (status = 403, description = "`forbidden`", body = Refusal),
        (status = 404, description = "`app_not_found`", body = Refusal),
        (status = 503, description = "`registry_unreachable`", body = Refusal),
    )
)]
async fn list(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path((app, id, offset, size)): Path<(String, String, String, String)>,
) -> Result<Response, BroadcastError> {
    require_app(&state, &app)?;
    let name = parse_name(&app, &id)?;
    let (offset, limit) = page(&offset, &size)?;
    let query = TokenQuery { app: name.app(), stream: Some(name.stream_id()), offset, limit };
    let tokens = ask(state.registry.tokens(query)).await?.into_iter();
    Ok(uncached_json(tokens.map(|token| broadcast_token(token.digest.clone(), &token, &id)).collect::<Vec<_>>()))
}

/// Revokes all tokens of a stream, except those for all streams of its app.
#[utoipa::path(
    delete,
    path = "/{app}/rest/v2/broadcasts/{id}/tokens",
    tag = "broadcasts",
    params(("app" = String, Path, description = "App"), ("id" = String, Path, description = "Stream id")),
    responses(
        (status = 200, body = OperationResult),
        (status = 400, description = "`bad_request`", body = Refusal),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = Refusal),
        (status = 503, description = "`registry_unreachable`", body = Refusal),
    )
)]
async fn revoke(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, BroadcastError> {
    require_app(&state, &app)?;
    let name = parse_name(&app, &id)?;
    let revoked = ask(state.registry.revoke_tokens(name.app(), Some(name.stream_id()))).await?;
    log::info!(stream = name.as_str(), tokens = revoked; "tokens revoked");
    state.access.reload();
    Ok(uncached_json(result(true, format!("{revoked} tokens have been revoked."))))
}

async fn make(
    state: &AppState,
    (app, id): (String, String),
    query: TokenQueryResult,
    kind: TokenKind,
) -> Result<Response, BroadcastError> {
    require_app(state, &app)?;
    let name = parse_name(&app, &id)?;
    let Query(TokenParameters { expire_date, grants }) =
        query.map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {}.", e.body_text())))?;
    let new = NewToken {
        stream: Some(name.stream_id().to_owned()),
        grants,
        kind,
        not_before_ms: 0,
        expires_at_ms: expire_date.saturating_mul(1_000),
    };
    let (token, document) = made_token::make(state, &app, new).await?;
    Ok(uncached_json(broadcast_token(token.reveal().to_owned(), &document, &id)))
}

fn is_usable(token: &TokenDocument, now_ms: u64) -> bool {
    token.revoked_at_ms.is_none()
        && token.used_at_ms.is_none()
        && token.not_before_ms <= now_ms
        && now_ms < token.expires_at_ms
}

fn broadcast_token(token_id: String, token: &TokenDocument, stream_id: &str) -> BroadcastToken {
    BroadcastToken {
        token_id,
        stream_id: stream_id.to_owned(),
        expire_date: token.expires_at_ms / 1_000,
        grants: token.grants,
        room_id: None,
    }
}

fn result(success: bool, message: String) -> OperationResult {
    OperationResult { success, message, data_id: None, error_id: 0 }
}
