//! Why a client is refused.

use headwater_registry::TokenRefusal;

/// Why a client is refused. The text is a sentence for the client; it contains no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AccessError {
    /// The app does not exist.
    #[error("There is no app of this name.")]
    UnknownApp,
    /// The node has not read the apps from the registry since it was set up.
    #[error("This node does not know yet who may use this app, because the registry is unreachable; try again.")]
    PoliciesUnavailable,
    /// The policy of the app or the stream admits nobody.
    #[error("Nobody may use this now: its administrator has closed the app or the stream.")]
    Closed,
    /// The address of the client is not in a network that may publish.
    #[error("Publishing to this app is not allowed from this network.")]
    NetworkNotAllowed,
    /// The policy requires a publish key, and none was presented.
    #[error(
        "A key is required: add ?key=KEY to the stream key of the encoder or to the URL, or &token=KEY to that of the \
         player page."
    )]
    KeyMissing,
    /// The policy requires a token, and none was presented.
    #[error(
        "A token is required: add ?token=TOKEN to the stream key of the encoder or to the URL, or &token=TOKEN to that \
         of the player page."
    )]
    TokenMissing,
    /// The publish key is another one.
    #[error("The key is wrong, or has been replaced: ask the administrator for the current one.")]
    KeyInvalid,
    /// The hash is that of another stream, action or secret.
    #[error(
        "The hash is wrong: it must be the SHA-256 of the stream id, \"publish\" or \"play\", and the secret of the \
         app, in hexadecimal."
    )]
    HashInvalid,
    /// The token is unknown, damaged, or its signature or signature algorithm is wrong.
    #[error(
        "The token is not valid: it is incomplete, not a token of this app, or of a kind that the app does not accept. \
         Ask for a new one."
    )]
    TokenInvalid,
    /// The token is longer than any valid one.
    #[error("The token is too long.")]
    TokenTooLong,
    /// The token has expired.
    #[error("The token has expired.")]
    TokenExpired,
    /// The JSON web token has no `exp`.
    #[error("The token has no expiry: it needs the claim exp.")]
    TokenWithoutExpiry,
    /// The token is not valid yet.
    #[error("The token is not valid yet.")]
    TokenNotYetValid,
    /// The token is for another app.
    #[error("The token is for another app.")]
    TokenWrongApp,
    /// The token is for another stream.
    #[error("The token is for another stream.")]
    TokenWrongStream,
    /// The token permits the other action, or names none.
    #[error("The token does not permit this: its type must be \"publish\" to publish and \"play\" to play.")]
    TokenWrongType,
    /// The token was revoked.
    #[error("The token was revoked.")]
    TokenRevoked,
    /// The one-time token was used before.
    #[error("The token was used already; it admits once.")]
    TokenUsed,
    /// The app's JWKS URL could never be fetched.
    #[error("The token cannot be checked now, because the keys of its issuer are unreachable; try again.")]
    JwksUnavailable,
    /// The registry, which alone knows one-time tokens, is unreachable.
    #[error("The token cannot be checked now, because the registry is unreachable; try again.")]
    RegistryUnreachable,
    /// The policy or its key has changed since the client was admitted.
    #[error("The access rules of this app have changed; open the stream again.")]
    PolicyChanged,
    /// The play session, which a playlist's URL carries, is damaged or has expired.
    #[error("This session is not valid or has expired; open the stream again with its token.")]
    SessionInvalid,
    /// The signature of a media URL is damaged, missing or that of another stream.
    #[error("The signature of this address is not valid.")]
    SignatureInvalid,
    /// The signature of a media URL is older than two windows.
    #[error("The signature of this address has expired; load the playlist again.")]
    SignatureExpired,
    /// The client has presented wrong credentials too often.
    #[error("Too many wrong keys or tokens came from this network; wait a minute.")]
    TooManyGuesses,
}

impl AccessError {
    /// The stable code for programs, counters and logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownApp => "app_not_found",
            Self::PoliciesUnavailable => "policies_unavailable",
            Self::Closed => "app_closed",
            Self::NetworkNotAllowed => "network_not_allowed",
            Self::KeyMissing => "key_missing",
            Self::TokenMissing => "token_missing",
            Self::KeyInvalid => "key_invalid",
            Self::HashInvalid => "hash_invalid",
            Self::TokenInvalid => "token_invalid",
            Self::TokenTooLong => "token_too_long",
            Self::TokenExpired => "token_expired",
            Self::TokenWithoutExpiry => "token_without_expiry",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenWrongApp => "token_wrong_app",
            Self::TokenWrongStream => "token_wrong_stream",
            Self::TokenWrongType => "token_wrong_type",
            Self::TokenRevoked => "token_revoked",
            Self::TokenUsed => "token_used",
            Self::JwksUnavailable => "jwks_unavailable",
            Self::RegistryUnreachable => "registry_unreachable",
            Self::PolicyChanged => "policy_changed",
            Self::SessionInvalid => "session_invalid",
            Self::SignatureInvalid => "signature_invalid",
            Self::SignatureExpired => "signature_expired",
            Self::TooManyGuesses => "too_many_attempts",
        }
    }

    /// True if the client has probably made up what it presented.
    pub(super) fn is_guess(self) -> bool {
        matches!(self, Self::KeyInvalid | Self::HashInvalid | Self::TokenInvalid | Self::TokenTooLong)
    }
}

impl From<TokenRefusal> for AccessError {
    fn from(refusal: TokenRefusal) -> Self {
        match refusal {
            TokenRefusal::Unknown => Self::TokenInvalid,
            TokenRefusal::OtherApp => Self::TokenWrongApp,
            TokenRefusal::OtherStream => Self::TokenWrongStream,
            TokenRefusal::OtherAction => Self::TokenWrongType,
            TokenRefusal::Revoked => Self::TokenRevoked,
            TokenRefusal::Used => Self::TokenUsed,
            TokenRefusal::NotYetValid => Self::TokenNotYetValid,
            TokenRefusal::Expired => Self::TokenExpired,
        }
    }
}
