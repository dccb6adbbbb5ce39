//! The rules of one app, prepared for decisions. Takes the time as an argument, and waits for
//! nothing but the keys of a JWKS URL.

use std::net::IpAddr;

use headwater_api::documents::{AppDocument, Grant, Policy};
use headwater_api::secret::Secret;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::error::AccessError;
use super::grounds::{Evidence, Grounds, OPEN};
use super::jwks::Jwks;
use super::jwks_client::JwksClient;
use super::jwt::{Claims, LEEWAY_MS, SignatureHeader};
use super::request::AccessRequest;
use super::secret_check::{SecretCheck, is_stream_hash};
use super::signing_keys::{Fingerprint, SigningKeys};
use super::token_digest::TokenId;

/// The rules of one app.
pub(super) struct AppRules {
    document: AppDocument,
    publish_key: Option<Key<SecretCheck>>,
    hash_secret: Option<Key<Secret>>,
    jwt_key: Option<Key<DecodingKey>>,
    jwks: Option<Key<Jwks>>,
    /// Stands for the policy that has no key.
    one_time: Fingerprint,
}

/// A key, and what identifies it in sessions.
struct Key<T> {
    key: T,
    fingerprint: Fingerprint,
}

impl std::fmt::Debug for AppRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.document.fmt(f)
    }
}

impl AppRules {
    /// Prepares the rules of an app. A policy whose key is missing or unusable admits nobody. Keys
    /// that `previous` has fetched remain, if their URL does.
    pub(super) fn new(document: AppDocument, previous: Option<&Self>, keys: &SigningKeys) -> Self {
        let fingerprint = |policy, secret: &Secret| keys.fingerprint(&format!("{policy}\0{}", secret.reveal()));
        let publish_key = document.publish_key.as_ref().map(|secret| Key {
            key: SecretCheck::new(secret.reveal().as_bytes()),
            fingerprint: fingerprint("key", secret),
        });
        let hash_secret = document
            .hash_secret
            .as_ref()
            .map(|secret| Key { key: secret.clone(), fingerprint: fingerprint("hash", secret) });
        let jwt_key = document.jwt_key.as_ref().and_then(|secret| {
            let key = DecodingKey::from_secret(secret.reveal().as_bytes()).ok()?;
            Some(Key { key, fingerprint: fingerprint("hs256", secret) })
        });
        let jwks = document.jwks_url.as_ref().map(|url| {
            let known = previous.and_then(|rules| rules.jwks.as_ref()).map(|known| &known.key);
            let known = known.filter(|known| known.is_of(url, document.jwks_private));
            let new = || Jwks::new(JwksClient::new(url, document.jwks_private));
            let fingerprint = keys.fingerprint(&format!("jwks\0{url}"));
            Key { key: known.map_or_else(new, Jwks::clone), fingerprint }
        });
        let one_time = keys.fingerprint("one_time_token");
        Self { document, publish_key, hash_secret, jwt_key, jwks, one_time }
    }

    /// The document that the rules were prepared from.
    pub(super) fn document(&self) -> &AppDocument {
        &self.document
    }

    /// What a client must present for this action on this stream.
    pub(super) fn policy(&self, action: Grant, stream_id: &str) -> Policy {
        match action {
            Grant::Publish => self.document.publish_policy(stream_id),
            Grant::Play => self.document.play_policy(stream_id),
        }
    }

    /// True if a client at this address may publish, as far as its address decides.
    fn permits_network(&self, action: Grant, client: IpAddr) -> bool {
        let networks = &self.document.publish_networks;
        action == Grant::Play || networks.is_empty() || networks.iter().any(|network| network.contains(client))
    }

    /// Checks what does not depend on credentials, and returns what the client must present.
    ///
    /// # Errors
    /// If the app is closed or the client is in another network.
    pub(super) fn required(&self, request: &AccessRequest<'_>) -> Result<Policy, AccessError> {
        let policy = self.policy(request.action, request.stream.stream_id());
        if policy == Policy::Closed {
            return Err(AccessError::Closed);
        }
        if !self.permits_network(request.action, request.client) {
            return Err(AccessError::NetworkNotAllowed);
        }
        Ok(policy)
    }

    /// Checks what the client presented, as `policy` requires it. Only the registry knows whether a
    /// one-time token is valid: here, any token will do.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub(super) async fn check_credentials(
        &self,
        policy: Policy,
        request: &AccessRequest<'_>,
        now_ms: u64,
    ) -> Result<Evidence, AccessError> {
        let AccessRequest { action, stream, credentials, .. } = request;
        match policy {
            Policy::Open => Ok(Evidence::without_token(OPEN)),
            Policy::Key => {
                let presented = credentials.publish_key().or_else(|| credentials.token());
                let presented = presented.ok_or(AccessError::KeyMissing)?;
                let matching = self.publish_key.as_ref().filter(|key| key.key.matches(presented.as_bytes()));
                matching.map(|key| Evidence::without_token(key.fingerprint)).ok_or(AccessError::KeyInvalid)
            }
            Policy::Hash => {
                let presented = credentials.token().ok_or(AccessError::TokenMissing)?;
                let secret = self.hash_secret.as_ref();
                let matching = secret.filter(|secret| is_stream_hash(&presented, stream, *action, &secret.key));
                matching.map(|key| Evidence::without_token(key.fingerprint)).ok_or(AccessError::HashInvalid)
            }
            Policy::Jwt => {
                let token = credentials.token().ok_or(AccessError::TokenMissing)?;
                let (claims, policy) = self.verify(&token).await?;
                claims.check(*action, stream, now_ms)?;
                Ok(Evidence { policy, token: TokenId::of(&token), expires_at_ms: claims.expires_at_ms() })
            }
            Policy::OneTimeToken => {
                let token = credentials.token().ok_or(AccessError::TokenMissing)?;
                if token.len() > MAX_ONE_TIME_TOKEN_BYTES {
                    return Err(AccessError::TokenTooLong);
                }
                Ok(Evidence { policy: self.one_time, token: TokenId::of(&token), expires_at_ms: u64::MAX })
            }
            Policy::Closed => Err(AccessError::Closed),
        }
    }

    /// Verifies a JSON web token, with the app's own key or one of its JWKS URL: the algorithm
    /// decides which. Returns its claims, and what identifies the source of the key.
    async fn verify(&self, token: &str) -> Result<(Claims, Fingerprint), AccessError> {
        let SignatureHeader { algorithm, key_id } = SignatureHeader::parse(token)?;
        if algorithm == Algorithm::HS256 {
            let key = self.jwt_key.as_ref().ok_or(AccessError::TokenInvalid)?;
            return Ok((Claims::verify(token, algorithm, &key.key)?, key.fingerprint));
        }
        let jwks = self.jwks.as_ref().ok_or(AccessError::TokenInvalid)?;
        let key = jwks.key.find(key_id.as_deref(), algorithm).await?;
        Ok((Claims::verify(token, key.algorithm, &key.key)?, jwks.fingerprint))
    }

    /// Checks that a client that was admitted on these grounds would still be admitted.
    /// `is_revoked`: its token has been revoked.
    ///
    /// # Errors
    /// Why it would not.
    pub(super) fn recheck(&self, grounds: &Grounds, is_revoked: bool, now_ms: u64) -> Result<(), AccessError> {
        let Grounds { action, stream, client, evidence, .. } = grounds;
        let policy = self.policy(*action, stream.stream_id());
        if policy == Policy::Closed {
            return Err(AccessError::Closed);
        }
        if !self.permits_network(*action, *client) {
            return Err(AccessError::NetworkNotAllowed);
        }
        if policy == Policy::Open {
            return Ok(());
        }
        if is_revoked {
            return Err(AccessError::TokenRevoked);
        }
        if !self.accepts(policy, evidence.policy) {
            return Err(AccessError::PolicyChanged);
        }
        if self.document.end_at_expiry && has_expired(evidence, now_ms) {
            return Err(AccessError::TokenExpired);
        }
        Ok(())
    }

    /// Checks that a play session admits a client again, or continues over HLS: it does not outlive
    /// the token that can be presented again. A one-time token only had to be used before it
    /// expired.
    ///
    /// # Errors
    /// If the token has expired.
    pub(super) fn check_session(&self, policy: Policy, grounds: &Grounds, now_ms: u64) -> Result<(), AccessError> {
        if policy == Policy::Jwt && has_expired(&grounds.evidence, now_ms) {
            return Err(AccessError::TokenExpired);
        }
        Ok(())
    }

    /// True if this policy and its current key are what a fingerprint identifies.
    fn accepts(&self, policy: Policy, fingerprint: Fingerprint) -> bool {
        let is = |key: Option<Fingerprint>| key == Some(fingerprint);
        match policy {
            Policy::Open => true,
            Policy::Key => is(self.publish_key.as_ref().map(|key| key.fingerprint)),
            Policy::Hash => is(self.hash_secret.as_ref().map(|key| key.fingerprint)),
            Policy::Jwt => {
                is(self.jwt_key.as_ref().map(|key| key.fingerprint))
                    || is(self.jwks.as_ref().map(|key| key.fingerprint))
            }
            Policy::OneTimeToken => fingerprint == self.one_time,
            Policy::Closed => false,
        }
    }
}

fn has_expired(evidence: &Evidence, now_ms: u64) -> bool {
    evidence.expires_at_ms.saturating_add(LEEWAY_MS) <= now_ms
}

/// Longer tokens are not looked up.
const MAX_ONE_TIME_TOKEN_BYTES: usize = 256;
