//! Whether a client may play a stream, and how HTTP says that it may not.

use std::net::IpAddr;
use std::sync::LazyLock;

use axum::http::{HeaderMap, header};
use headwater_api::StreamName;
use headwater_api::documents::Grant;

use crate::access::{AccessError, AccessRequest, Credentials, Grounds};
use crate::http::error::{Code, Problem};
use crate::http::state::AppState;
use crate::runtime::log_limiter::LogLimiter;

/// The value of the `Authorization` header of a request.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())
}

/// Checks that the client may play the stream. Logs a refusal.
pub(super) async fn authorize_play(
    state: &AppState,
    stream: &StreamName,
    credentials: Credentials<'_>,
    client: IpAddr,
) -> Result<Grounds, Problem> {
    let request = AccessRequest { action: Grant::Play, stream, credentials, client };
    Ok(state.access.authorize(&request).await.inspect_err(|e| log_refusal(stream, client, *e))?)
}

/// Consumes the one-time token of an admitted client, if it presented one. Logs a refusal.
pub(super) async fn redeem(state: &AppState, grounds: &mut Grounds) -> Result<(), Problem> {
    let redeemed = state.access.redeem(grounds).await;
    Ok(redeemed.inspect_err(|e| log_refusal(grounds.stream(), grounds.client(), *e))?)
}

/// Checks the one-time token of an admitted client, if it presented one. Logs a refusal.
pub(super) async fn check_redeemable(state: &AppState, grounds: &Grounds) -> Result<(), Problem> {
    let checked = state.access.check_redeemable(grounds).await;
    Ok(checked.inspect_err(|e| log_refusal(grounds.stream(), grounds.client(), *e))?)
}

/// Logs that a client may not play a stream.
pub(super) fn log_refusal(stream: &StreamName, client: IpAddr, error: AccessError) {
    static LIMITER: LazyLock<LogLimiter> = LazyLock::new(LogLimiter::default);
    if LIMITER.admits("play refused", client) {
        log::info!(stream = stream.as_str(), peer:% = client, protocol = "http", err = error.code(); "play refused");
    }
}

impl From<AccessError> for Problem {
    fn from(e: AccessError) -> Self {
        let code = match e {
            AccessError::UnknownApp => return Self::fixed(Code::AppNotFound, "There is no such app."),
            AccessError::PoliciesUnavailable => Code::PoliciesUnavailable,
            AccessError::Closed => Code::AppClosed,
            AccessError::NetworkNotAllowed => Code::NetworkNotAllowed,
            AccessError::KeyMissing => Code::KeyMissing,
            AccessError::TokenMissing => Code::TokenMissing,
            AccessError::KeyInvalid => Code::KeyInvalid,
            AccessError::HashInvalid => Code::HashInvalid,
            AccessError::TokenInvalid => Code::TokenInvalid,
            AccessError::TokenTooLong => Code::TokenTooLong,
            AccessError::TokenExpired => Code::TokenExpired,
            AccessError::TokenWithoutExpiry => Code::TokenWithoutExpiry,
            AccessError::TokenNotYetValid => Code::TokenNotYetValid,
            AccessError::TokenWrongApp => Code::TokenWrongApp,
            AccessError::TokenWrongStream => Code::TokenWrongStream,
            AccessError::TokenWrongType => Code::TokenWrongType,
            AccessError::TokenRevoked => Code::TokenRevoked,
            AccessError::TokenUsed => Code::TokenUsed,
            AccessError::JwksUnavailable => Code::JwksUnavailable,
            AccessError::RegistryUnreachable => Code::RegistryUnreachable,
            AccessError::PolicyChanged => Code::PolicyChanged,
            AccessError::SessionInvalid => Code::SessionInvalid,
            AccessError::SignatureInvalid => Code::SignatureInvalid,
            AccessError::SignatureExpired => Code::SignatureExpired,
            AccessError::TooManyGuesses => Code::TooManyAttempts,
        };
        Self::new(code, e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_same_code_in_http_and_in_counters() {
        for error in [AccessError::KeyMissing, AccessError::TokenExpired, AccessError::TooManyGuesses] {
            assert_eq!(Problem::from(error).code().as_str(), error.code());
        }
    }
}
