//! `/rest/v2/apps/APP/tokens`: makes, lists and revokes tokens. Only for the administrator.

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use headwater_api::error::ErrorBody;
use headwater_api::rest::{MadeToken, NewToken, TokenRevocation, TokenStatus};
use headwater_registry::{MAX_LISTED_TOKENS, TokenQuery, Tokens as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::uncached_json;
use super::json_body::JsonBody;
use super::registry_call::ask;
use super::{apps, made_token};
use crate::http::auth::Administrator;
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(make_token)).routes(routes!(list_tokens)).routes(routes!(revoke_token))
}

/// Makes a token. The response is the only one that contains it.
#[utoipa::path(
    post,
    path = "/rest/v2/apps/{app}/tokens",
    tag = "apps",
    params(("app" = String, Path, description = "App")),
    request_body = NewToken,
    responses(
        (status = 201, body = MadeToken),
        (status = 400, description = "`bad_request`", body = ErrorBody),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = ErrorBody),
        (status = 409, description = "`no_token_key`: the app has no `jwt_key`", body = ErrorBody),
        (status = 413, description = "`body_too_large`", body = ErrorBody),
        (status = 415, description = "`wrong_content_type`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn make_token(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
    JsonBody(new): JsonBody<NewToken>,
) -> Result<Response, Problem> {
    let (token, document) = made_token::make(&state, &app, new).await?;
    let made = MadeToken { token: token.reveal().to_owned(), status: TokenStatus::from(document) };
    let mut response = uncached_json(made);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Lists the tokens of an app that have not expired, the latest first.
#[utoipa::path(
    get,
    path = "/rest/v2/apps/{app}/tokens/{offset}/{size}",
    tag = "apps",
    params(
        ("app" = String, Path, description = "App"),
        ("offset" = u64, Path, description = "Number of tokens to skip"),
        ("size" = u64, Path, description = "Maximum number of tokens, up to 1,000"),
    ),
    responses(
        (status = 200, body = Vec<TokenStatus>),
        (status = 400, description = "`bad_request`", body = ErrorBody),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`", body = ErrorBody),
        (status = 404, description = "`app_not_found`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn list_tokens(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path((app, offset, size)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let (offset, limit) = page(&offset, &size)?;
    let app = apps::find(&state, &app).await?.ok_or_else(apps::not_found)?.name;
    let query = TokenQuery { app: &app, stream: None, offset, limit };
    let tokens = ask(state.registry.tokens(query)).await?;
    Ok(uncached_json(tokens.into_iter().map(TokenStatus::from).collect::<Vec<_>>()))
}

/// Revokes a token: nobody is admitted with it any more, and the sessions that it admitted end on
/// every node within five seconds. A JSON web token need not have been made here.
#[utoipa::path(
    post,
    path = "/rest/v2/apps/{app}/tokens/revoke",
    tag = "apps",
    params(("app" = String, Path, description = "App")),
    request_body = TokenRevocation,
    responses(
        (status = 204),
        (status = 400, description = "`bad_request`", body = ErrorBody),
        (status = 401, description = "`unauthorized`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`app_not_found`, `token_not_found`", body = ErrorBody),
        (status = 413, description = "`body_too_large`", body = ErrorBody),
        (status = 415, description = "`wrong_content_type`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    )
)]
async fn revoke_token(
    Extract(state): Extract<AppState>,
    _: Administrator,
    Path(app): Path<String>,
    JsonBody(revocation): JsonBody<TokenRevocation>,
) -> Result<Response, Problem> {
    if !made_token::revoke(&state, &app, &revocation.token).await? {
        return Err(Problem::fixed(Code::TokenNotFound, "There is no such token, or it has expired."));
    }
    log::info!(app = app.as_str(); "token revoked");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Parses the part of a list that a path names.
pub(super) fn page(offset: &str, size: &str) -> Result<(u64, u64), Problem> {
    let parse = |what: &str, text: &str| {
        let wrong = || Problem::new(Code::BadRequest, format!("The {what} is not a whole number: {text:.40}."));
        text.parse::<u64>().map_err(|_| wrong())
    };
    Ok((parse("offset", offset)?, parse("size", size)?.min(MAX_LISTED_TOKENS)))
}
