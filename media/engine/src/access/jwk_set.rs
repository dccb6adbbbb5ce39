//! A JWK set (RFC 7517 §5): the public keys with which an issuer's tokens are verified.
//!
//! Only RSA and P-256 keys for signatures are used, each with one algorithm. Symmetric keys are
//! ignored: whoever can read them could sign.

use std::collections::HashMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// The keys of an issuer.
#[derive(Debug, Default)]
pub(super) struct JwkSet {
    by_id: HashMap<String, PublicKey>,
    /// Keys without an id.
    others: Vec<PublicKey>,
}

/// A key, and the only algorithm that it is used with.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The text is no JWK set.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not a JWK set")]
pub(super) struct InvalidJwkSet(#[source] serde_json::Error);

impl JwkSet {
    /// Parses a set, and skips keys that cannot be used.
    ///
    /// # Errors
    /// If the text is not a set.
    pub(super) fn parse(text: &[u8]) -> Result<Self, InvalidJwkSet> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<serde_json::Value>,
        }
        let Keys { keys } = serde_json::from_slice(text).map_err(InvalidJwkSet)?;
        let mut set = Self::default();
        for key in keys.into_iter().take(MAX_KEYS) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else { continue };
            let Some(key) = PublicKey::from_jwk(&jwk) else { continue };
            match jwk.common.key_id {
                Some(id) => drop(set.by_id.insert(id, key)),
                None => set.others.push(key),
            }
        }
        Ok(set)
    }

    /// The key for a token with this `kid` and algorithm. A token without a `kid` is verified with
    /// the only key of its algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let is_usable = |key: &&PublicKey| key.algorithm == algorithm;
        match id {
            Some(id) => self.by_id.get(id).filter(is_usable),
            None => {
                let mut usable = self.by_id.values().chain(&self.others).filter(is_usable);
                usable.next().filter(|_| usable.next().is_none())
            }
        }
    }

    /// Number of usable keys.
    pub(super) fn len(&self) -> usize {
        self.by_id.len() + self.others.len()
    }
}

impl PublicKey {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let (algorithm, expected) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            _ => return None,
        };
        if jwk.common.key_algorithm.is_some_and(|named| named != expected) {
            return None;
        }
        Some(Self { algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

/// Issuers have a few keys: the current one, the next one, and some that expire.
const MAX_KEYS: usize = 100;
