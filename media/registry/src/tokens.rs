//! Tokens: one-time tokens and recorded JSON web tokens.

use std::future::Future;

use headwater_api::StreamName;
use headwater_api::documents::{Grant, Revocations, TokenDocument, TokenKind};

use crate::RegistryError;

/// The tokens of a registry. Its clock alone decides about times. Expired tokens are removed.
pub trait Tokens: Send + Sync {
    /// Writes a new token.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if there is a token of this digest, used or not.
    fn create_token(&self, token: &TokenDocument) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Consumes a one-time token for a stream and an action. Granted exactly once in the whole
    /// cluster. A token that is refused remains as it was. One call to the store if granted.
    fn consume_token(
        &self,
        digest: &str,
        stream: &StreamName,
        grants: Grant,
    ) -> impl Future<Output = Result<TokenUse, RegistryError>> + Send;

    /// Whether [`Tokens::consume_token`] would grant the token now; consumes nothing.
    fn check_token(
        &self,
        digest: &str,
        stream: &StreamName,
        grants: Grant,
    ) -> impl Future<Output = Result<TokenUse, RegistryError>> + Send;

    /// The token of this digest, as long as it is known ([`TokenDocument::kept_until_ms`]).
    fn token(&self, digest: &str) -> impl Future<Output = Result<Option<TokenDocument>, RegistryError>> + Send;

    /// One page of the tokens that have not expired, the latest first.
    fn tokens(&self, query: TokenQuery<'_>) -> impl Future<Output = Result<Vec<TokenDocument>, RegistryError>> + Send;

    /// Revokes a token; also one that has expired, because its sessions may still run. Returns
    /// false if it is not known. Revoking it again changes nothing.
    fn revoke_token(&self, digest: &str) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Revokes all tokens of a stream, not those for all streams of its app; without a stream, all
    /// tokens of the app. Returns the number of tokens that were not revoked before.
    fn revoke_tokens(
        &self,
        app: &str,
        stream_id: Option<&str>,
    ) -> impl Future<Output = Result<u64, RegistryError>> + Send;

    /// The tokens that were revoked at or after a Unix time in milliseconds and are still known
    /// ([`TokenDocument::kept_until_ms`]); 0: all. A revocation becomes visible up to some seconds
    /// after its time: pass a time well before [`Revocations::at_ms`] of the previous answer.
    fn revocations(&self, since_ms: u64) -> impl Future<Output = Result<Revocations, RegistryError>> + Send;
}

/// Which tokens to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenQuery<'a> {
    /// The app.
    pub app: &'a str,
    /// Only those for this stream id; `None`: all of the app.
    pub stream: Option<&'a str>,
    /// Number of tokens to skip.
    pub offset: u64,
    /// Maximum number of tokens; at most [`MAX_LISTED_TOKENS`] are returned.
    pub limit: u64,
}

/// Maximum number of tokens in one answer.
pub const MAX_LISTED_TOKENS: u64 = 1_000;

/// The outcome of [`Tokens::consume_token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenUse {
    /// The token admits its bearer, now and never again.
    Granted(TokenDocument),
    /// The token does not admit its bearer.
    Refused(TokenRefusal),
}

/// Why a one-time token does not admit its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    /// There is no such one-time token, or it expired some time ago.
    Unknown,
    /// It is for another app.
    OtherApp,
    /// It is for another stream of the app.
    OtherStream,
    /// It is for playing, not for publishing, or the other way round.
    OtherAction,
    /// It was revoked.
    Revoked,
    /// It was used before.
    Used,
    /// It is not valid yet.
    NotYetValid,
    /// It has expired.
    Expired,
}

/// The outcome of a check of the token that was found.
pub(crate) fn checked(found: Option<TokenDocument>, stream: &StreamName, grants: Grant, now_ms: u64) -> TokenUse {
    let Some(token) = found else { return TokenUse::Refused(TokenRefusal::Unknown) };
    match refusal(&token, stream, grants, now_ms) {
        Some(refused) => TokenUse::Refused(refused),
        None => TokenUse::Granted(token),
    }
}

/// Why a token does not admit its bearer; `None` if it does.
pub(crate) fn refusal(token: &TokenDocument, stream: &StreamName, grants: Grant, now_ms: u64) -> Option<TokenRefusal> {
    let is_other_stream = token.stream.as_deref().is_some_and(|id| id != stream.stream_id());
    match () {
        () if token.kind != TokenKind::OneTime => Some(TokenRefusal::Unknown),
        () if token.app != stream.app() => Some(TokenRefusal::OtherApp),
        () if is_other_stream => Some(TokenRefusal::OtherStream),
        () if token.grants != grants => Some(TokenRefusal::OtherAction),
        () if token.revoked_at_ms.is_some() => Some(TokenRefusal::Revoked),
        () if token.used_at_ms.is_some() => Some(TokenRefusal::Used),
        () if now_ms < token.not_before_ms => Some(TokenRefusal::NotYetValid),
        () if token.expires_at_ms <= now_ms => Some(TokenRefusal::Expired),
        () => None,
    }
}
