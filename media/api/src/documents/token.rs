//! Tokens that admit a publisher or a viewer, as the registry stores them.

use serde::{Deserialize, Serialize};

/// A token that an administrator has made: one-time, or a JSON web token that is recorded so that
/// it can be listed and revoked.
///
/// Kept until [`TokenDocument::kept_until_ms`], also when it is used or revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDocument {
    /// SHA-256 of the token in lower-case hexadecimal. Reading the registry does not reveal the
    /// token.
    pub digest: String,
    /// The app that the token is for.
    pub app: String,
    /// Id of the stream that the token is for; `None`: all streams of the app.
    #[serde(default)]
    pub stream: Option<String>,
    /// The action that the token permits.
    pub grants: Grant,
    /// How often the token admits.
    pub kind: TokenKind,
    /// Unix time of the start of validity, in milliseconds; 0: at once.
    #[serde(default)]
    pub not_before_ms: u64,
    /// Unix time of expiry, in milliseconds. For one-time tokens by the registry's clock.
    pub expires_at_ms: u64,
    /// Unix time of creation, in milliseconds.
    #[serde(default)]
    pub created_at_ms: u64,
    /// Unix time of the use of a one-time token, in milliseconds, by the registry's clock.
    #[serde(default)]
    pub used_at_ms: Option<u64>,
    /// Unix time of revocation, in milliseconds, by the registry's clock.
    #[serde(default)]
    pub revoked_at_ms: Option<u64>,
}

impl TokenDocument {
    /// Unix time until which the token remains known, in milliseconds: it can be revoked as long as
    /// sessions that it has begun may last.
    pub fn kept_until_ms(&self) -> u64 {
        self.expires_at_ms.saturating_add(KEPT_AFTER_EXPIRY_MS)
    }
}

/// Maximum duration of the play session that a token begins, in milliseconds: a day.
pub const MAX_PLAY_SESSION_MS: u64 = 24 * 60 * 60 * 1_000;
/// Longer than the longest session, by the tolerated difference between clocks.
pub const KEPT_AFTER_EXPIRY_MS: u64 = MAX_PLAY_SESSION_MS + 120_000;

/// How often a token admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TokenKind {
    /// One client. The registry marks the token as used.
    OneTime,
    /// Any number of clients until it expires or is revoked: a JSON web token.
    Jwt,
}

/// The action that a token permits its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Grant {
    /// Publish the stream.
    Publish,
    /// Play the stream.
    Play,
}

impl Grant {
    /// `publish` or `play`: the claim `type` of a JSON web token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

/// Tokens that have been revoked and are still known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// Sorted by digest.
    pub tokens: Vec<Revocation>,
    /// Unix time of this answer by the registry's clock, in milliseconds. If there are no tokens,
    /// it may be the time that the caller asked for.
    pub at_ms: u64,
}

/// A token that has been revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// As [`TokenDocument::digest`].
    pub digest: String,
    /// As [`TokenDocument::kept_until_ms`].
    pub kept_until_ms: u64,
}

impl From<TokenDocument> for Revocation {
    fn from(token: TokenDocument) -> Self {
        Self { kept_until_ms: token.kept_until_ms(), digest: token.digest }
    }
}
