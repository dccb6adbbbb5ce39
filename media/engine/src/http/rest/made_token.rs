//! Makes tokens and writes them to the registry, for both formats of the API.

use headwater_api::StreamName;
use headwater_api::documents::{AppDocument, Grant, KEPT_AFTER_EXPIRY_MS, TokenDocument, TokenKind};
use headwater_api::name;
use headwater_api::rest::{NewToken, TokenClaims};
use headwater_api::secret::Secret;
use headwater_program::token;
use headwater_registry::{RegistryError, Tokens as _};

use super::apps;
use super::registry_call::{ask, unreachable, within_timeout};
use crate::access::{MAX_TOKEN_BYTES, claimed_expiry, is_signed_with, sign_jwt, token_digest};
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;

/// Makes a token for an app.
///
/// # Errors
/// If the app does not exist, has no key for this kind of token, or a time or name is wrong.
pub(super) async fn make(state: &AppState, app: &str, new: NewToken) -> Result<(Secret, TokenDocument), Problem> {
    let now_ms = state.hub.wall_clock().now_ms();
    check(&new, now_ms)?;
    let app = apps::find(state, app).await?.ok_or_else(apps::not_found)?;
    let token = match new.kind {
        TokenKind::OneTime => token::generate(),
        TokenKind::Jwt => sign(&app, &new)?,
    };
    let document = TokenDocument {
        digest: token_digest(token.reveal()),
        app: app.name,
        stream: new.stream,
        grants: new.grants,
        kind: new.kind,
        not_before_ms: new.not_before_ms,
        expires_at_ms: new.expires_at_ms,
        created_at_ms: now_ms,
        used_at_ms: None,
        revoked_at_ms: None,
    };
    ask(state.registry.create_token(&document)).await?;
    Ok((token, document))
}

/// Revokes a token: one that is listed, by itself or by its id, or a JSON web token of another
/// issuer, which is recorded until it expires. Returns false if there is no such token.
pub(super) async fn revoke(state: &AppState, app: &str, presented: &str) -> Result<bool, Problem> {
    let app = apps::find(state, app).await?.ok_or_else(apps::not_found)?.name;
    let digest = if is_digest(presented) { presented.to_owned() } else { token_digest(presented) };
    if let Some(found) = ask(state.registry.token(&digest)).await? {
        let is_revoked = found.app == app && ask(state.registry.revoke_token(&digest)).await?;
        state.access.reload();
        return Ok(is_revoked);
    }
    let now_ms = state.hub.wall_clock().now_ms();
    let Some(expires_at_s) = claimed_expiry(presented).filter(|_| presented.len() <= MAX_TOKEN_BYTES) else {
        return Ok(false);
    };
    let expires_at_ms = expires_at_s.saturating_mul(1_000);
    // Sessions that it has begun may still run.
    if expires_at_ms.saturating_add(KEPT_AFTER_EXPIRY_MS) <= now_ms {
        return Ok(false);
    }
    let document = TokenDocument {
        digest,
        app,
        stream: None,
        // What it permits is of no interest any more.
        grants: Grant::Play,
        kind: TokenKind::Jwt,
        not_before_ms: 0,
        expires_at_ms: expires_at_ms.min(now_ms + MAX_VALIDITY_MS),
        created_at_ms: now_ms,
        used_at_ms: None,
        revoked_at_ms: None,
    };
    match within_timeout(state.registry.create_token(&document)).await? {
        // Somebody else revokes it at the same moment.
        Ok(()) | Err(RegistryError::Exists { .. }) => {}
        Err(e) => return Err(unreachable(e)),
    }
    // By the registry's clock, by which nodes ask for revocations.
    let is_revoked = ask(state.registry.revoke_token(&document.digest)).await?;
    state.access.reload();
    Ok(is_revoked)
}

/// Finds the token that somebody presents for a stream; `None` if it is not recorded, or is not
/// signed with the app's key: the registry knows a JSON web token by what is signed.
pub(super) async fn find(
    state: &AppState,
    name: &StreamName,
    presented: &str,
) -> Result<Option<TokenDocument>, Problem> {
    let found = ask(state.registry.token(&token_digest(presented))).await?.filter(|token| {
        token.app == name.app() && token.stream.as_deref().is_none_or(|stream| stream == name.stream_id())
    });
    if found.as_ref().is_some_and(|token| token.kind == TokenKind::Jwt) {
        let key = apps::find(state, name.app()).await?.and_then(|app| app.jwt_key);
        return Ok(found.filter(|_| key.is_some_and(|key| is_signed_with(presented, &key))));
    }
    Ok(found)
}

fn check(new: &NewToken, now_ms: u64) -> Result<(), Problem> {
    let wrong = |message: &'static str| Err(Problem::fixed(Code::BadRequest, message));
    if let Some(Err(e)) = new.stream.as_deref().map(name::check_stream_id) {
        return Err(Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")));
    }
    if new.expires_at_ms <= now_ms {
        return wrong("The token would have expired already: the time of expiry is a Unix time in the future.");
    }
    if new.expires_at_ms > now_ms + MAX_VALIDITY_MS {
        return wrong("The token would be valid for more than ten years.");
    }
    if new.expires_at_ms <= new.not_before_ms {
        return wrong("The token would expire before it becomes valid.");
    }
    Ok(())
}

fn sign(app: &AppDocument, new: &NewToken) -> Result<Secret, Problem> {
    let Some(key) = &app.jwt_key else {
        return Err(Problem::new(
            Code::NoTokenKey,
            format!("The app {} has no jwt_key to sign tokens with: set one first.", app.name),
        ));
    };
    let id = token::generate();
    let claims = TokenClaims {
        stream_id: new.stream.as_deref(),
        grants: new.grants,
        app: &app.name,
        nbf: (new.not_before_ms > 0).then_some(new.not_before_ms / 1_000),
        exp: new.expires_at_ms / 1_000,
        jti: id.reveal(),
    };
    sign_jwt(&claims, key).map_err(|_| Problem::fixed(Code::Internal, "The token could not be made."))
}

/// True for 64 lower-case hexadecimal digits. No token of this server has this form.
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Maximum time from now to the expiry of a token: ten years.
const MAX_VALIDITY_MS: u64 = 10 * 366 * 24 * 3_600 * 1_000;
