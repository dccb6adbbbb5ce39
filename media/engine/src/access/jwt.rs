//! JSON web tokens (RFC 7519) with the claims of Ant Media: parsing, signature and claims.
//!
//! | claim | meaning |
//! | --- | --- |
//! | `streamId` | id of the stream; absent or `*`: all streams of the app |
//! | `type` | `publish` or `play`; required |
//! | `exp` | Unix time of expiry, in seconds; required |
//! | `nbf` | Unix time of the start of validity, in seconds |
//! | `app` | the app; absent: any app whose key verifies the token |
//!
//! The signature algorithm follows from the key (RFC 8725 §3.1), HS256 from the app's own key,
//! RS256 or ES256 from a key of its JWKS URL: `none` and a public key used as an HMAC key never
//! match. Takes the time as an argument; must not know where keys come from.

use headwater_api::StreamName;
use headwater_api::documents::Grant;
use headwater_api::secret::Secret;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::error::AccessError;
use super::jwt_crypto;

/// Maximum length of a token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// The claims of a token whose signature is valid.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "streamId")]
    stream_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    app: Option<String>,
    /// RFC 7519 §2 permits fractions of a second.
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// What the header of a token says about its signature. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignatureHeader {
    pub(super) algorithm: Algorithm,
    /// `kid`: which key of its issuer.
    pub(super) key_id: Option<String>,
}

impl SignatureHeader {
    /// Parses the header of a token.
    ///
    /// # Errors
    /// If the token is too long or damaged, or names an algorithm that no key has.
    pub(super) fn parse(token: &str) -> Result<Self, AccessError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AccessError::TokenTooLong);
        }
        let header = decode_header(token).map_err(|_| AccessError::TokenInvalid)?;
        match header.alg {
            Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 => {
                Ok(Self { algorithm: header.alg, key_id: header.kid })
            }
            _ => Err(AccessError::TokenInvalid),
        }
    }
}

impl Claims {
    /// Verifies the signature of a token with a key, and parses its claims. They are not checked
    /// yet.
    ///
    /// # Errors
    /// If the token is damaged or not signed with this key and algorithm.
    pub(super) fn verify(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Self, AccessError> {
        jwt_crypto::install();
        let mut validation = Validation::new(algorithm);
        // `check` does this, with the clock of the cluster.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let verified = decode::<Self>(token, key, &validation);
        verified.map(|token| token.claims).map_err(|_| AccessError::TokenInvalid)
    }

    /// Checks that the token permits this action on this stream at this time.
    ///
    /// # Errors
    /// The first claim that does not.
    pub(super) fn check(&self, action: Grant, stream: &StreamName, now_ms: u64) -> Result<(), AccessError> {
        let now_s = now_ms as f64 / 1_000.0;
        let leeway_s = LEEWAY_MS as f64 / 1_000.0;
        let exp = self.exp.ok_or(AccessError::TokenWithoutExpiry)?;
        if now_s >= exp + leeway_s {
            return Err(AccessError::TokenExpired);
        }
        if self.nbf.is_some_and(|nbf| now_s < nbf - leeway_s) {
            return Err(AccessError::TokenNotYetValid);
        }
        if self.app.as_ref().is_some_and(|app| app != stream.app()) {
            return Err(AccessError::TokenWrongApp);
        }
        if self.stream_id.as_ref().is_some_and(|id| id != "*" && id != stream.stream_id()) {
            return Err(AccessError::TokenWrongStream);
        }
        if self.kind.as_deref() != Some(action.as_str()) {
            return Err(AccessError::TokenWrongType);
        }
        Ok(())
    }

    /// Unix time of expiry, in milliseconds; `u64::MAX`: none.
    pub(super) fn expires_at_ms(&self) -> u64 {
        // Saturates.
        self.exp.map_or(u64::MAX, |exp| (exp * 1_000.0) as u64)
    }
}

/// True if a token is signed with this HS256 key, whatever it claims.
pub fn is_signed_with(token: &str, key: &Secret) -> bool {
    let key = DecodingKey::from_secret(key.reveal().as_bytes());
    token.len() <= MAX_TOKEN_BYTES && key.is_ok_and(|key| Claims::verify(token, Algorithm::HS256, &key).is_ok())
}

/// Tolerated difference between the clocks of the issuer and the cluster, in milliseconds.
pub(crate) const LEEWAY_MS: u64 = 30_000;

#[cfg(test)]
#[path = "jwt_test.rs"]
mod tests;
