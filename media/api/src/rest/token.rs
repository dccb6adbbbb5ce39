//! Tokens: as the administrator makes and lists them, and in the shape of Ant Media's REST v2.

use serde::{Deserialize, Serialize};

use crate::documents::{Grant, TokenDocument, TokenKind};

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewToken {
    /// Id of the stream that the token is for; null or absent: all streams of the app.
    #[serde(default)]
    pub stream: Option<String>,
    /// The action that the token permits.
    #[serde(rename = "type")]
    pub grants: Grant,
    /// `one_time` admits one client; `jwt` any number, and needs the app's `jwt_key`.
    pub kind: TokenKind,
    /// Unix time of the start of validity, in milliseconds; absent: at once.
    #[serde(default)]
    pub not_before_ms: u64,
    /// Unix time of expiry, in milliseconds.
    pub expires_at_ms: u64,
}

/// A token, which is shown only this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeToken {
    /// The token itself: the value of `?token=`.
    pub token: String,
    /// The token as it is listed.
    #[serde(flatten)]
    pub status: TokenStatus,
}

/// A token as it is listed, without the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenStatus {
    /// Identifies the token without revealing it: a SHA-256 in lower-case hexadecimal.
    pub id: String,
    /// Id of the stream that the token is for; null: all streams of the app.
    pub stream: Option<String>,
    /// The action that the token permits.
    #[serde(rename = "type")]
    pub grants: Grant,
    /// `one_time` or `jwt`.
    pub kind: TokenKind,
    /// Unix time of creation, in milliseconds.
    pub created_at_ms: u64,
    /// Unix time of the start of validity, in milliseconds; 0: at once.
    pub not_before_ms: u64,
    /// Unix time of expiry, in milliseconds.
    pub expires_at_ms: u64,
    /// Unix time of the use of a one-time token, in milliseconds; null: not used.
    pub used_at_ms: Option<u64>,
    /// Unix time of revocation, in milliseconds; null: not revoked.
    pub revoked_at_ms: Option<u64>,
}

impl From<TokenDocument> for TokenStatus {
    fn from(token: TokenDocument) -> Self {
        Self {
            id: token.digest,
            stream: token.stream,
            grants: token.grants,
            kind: token.kind,
            created_at_ms: token.created_at_ms,
            not_before_ms: token.not_before_ms,
            expires_at_ms: token.expires_at_ms,
            used_at_ms: token.used_at_ms,
            revoked_at_ms: token.revoked_at_ms,
        }
    }
}

/// A token to revoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenRevocation {
    /// The token itself, or the id under which it is listed. A JSON web token may have been made
    /// elsewhere.
    pub token: String,
}

/// A token in the format of Ant Media's REST v2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BroadcastToken {
    /// The token itself; in lists a SHA-256 in lower-case hexadecimal, because the token is not
    /// stored.
    pub token_id: String,
    /// Id of the stream that the token is for.
    pub stream_id: String,
    /// Unix time of expiry, in seconds.
    pub expire_date: u64,
    /// `publish` or `play`.
    #[serde(rename = "type")]
    pub grants: Grant,
    /// Always null: there are no rooms.
    #[serde(default)]
    pub room_id: Option<String>,
}

/// The result of an operation in the format of Ant Media's REST v2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationResult {
    /// True if the operation has succeeded, or if the token is valid.
    pub success: bool,
    /// One sentence.
    pub message: String,
    /// Always null.
    pub data_id: Option<String>,
    /// Always 0.
    pub error_id: i32,
}

/// The claims of a JSON web token, with the names of Ant Media, in the order in which they are
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenClaims<'a> {
    /// Id of the stream; absent: all streams of the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<&'a str>,
    /// `publish` or `play`.
    #[serde(rename = "type")]
    pub grants: Grant,
    /// The app.
    pub app: &'a str,
    /// Unix time of the start of validity, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Unix time of expiry, in seconds.
    pub exp: u64,
    /// A random id, so that no two tokens are equal.
    pub jti: &'a str,
}
