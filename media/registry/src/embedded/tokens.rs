//! Tokens in the file.

use headwater_api::StreamName;
use headwater_api::documents::{Grant, Revocation, Revocations, TokenDocument};
use redb::{ReadableTable as _, TableDefinition};

use super::Embedded;
use super::file::{Table, encode};
use crate::error::Cause;
use crate::tokens::{MAX_LISTED_TOKENS, refusal};
use crate::{RegistryError, TokenQuery, TokenRefusal, TokenUse, Tokens};

impl Tokens for Embedded {
    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        let now_ms = self.now_ms();
        let created = self.write(TOKENS, |rows| {
            // Expired tokens are removed here; nothing else would remove them.
            rows.retain(|_, value| parse(value).is_ok_and(|token| now_ms < token.expires_at_ms))?;
            let is_new = rows.get(token.digest.as_str())?.is_none();
            if is_new {
                rows.insert(token.digest.as_str(), encode(token)?.as_slice())?;
            }
            Ok(is_new)
        })?;
        match created {
            true => Ok(()),
            false => Err(RegistryError::Exists { what: "token", id: token.digest.clone() }),
        }
    }

    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<TokenUse, RegistryError> {
        let now_ms = self.now_ms();
        // Most callers present something that is no valid token: that must not cost a write.
        let refused = match self.read_one::<TokenDocument>(TOKENS, digest)? {
            Some(token) => refusal(&token, stream, grants, now_ms),
            None => Some(TokenRefusal::Unknown),
        };
        if let Some(refused) = refused {
            return Ok(TokenUse::Refused(refused));
        }
        self.write(TOKENS, |rows| {
            let mut token = match rows.get(digest)? {
                Some(value) => parse(value.value())?,
                None => return Ok(TokenUse::Refused(TokenRefusal::Unknown)),
            };
            if let Some(refused) = refusal(&token, stream, grants, now_ms) {
                return Ok(TokenUse::Refused(refused));
            }
            token.used_at_ms = Some(now_ms);
            rows.insert(digest, encode(&token)?.as_slice())?;
            Ok(TokenUse::Granted(token))
        })
    }

    async fn token(&self, digest: &str) -> Result<Option<TokenDocument>, RegistryError> {
        let now_ms = self.now_ms();
        Ok(self.read_one::<TokenDocument>(TOKENS, digest)?.filter(|token| now_ms < token.expires_at_ms))
    }

    async fn tokens(&self, query: TokenQuery<'_>) -> Result<Vec<TokenDocument>, RegistryError> {
        let mut tokens = self.unexpired()?;
        tokens.retain(|token| {
            token.app == query.app && query.stream.is_none_or(|id| token.stream.as_deref() == Some(id))
        });
        tokens.sort_by(|a, b| (b.created_at_ms, &a.digest).cmp(&(a.created_at_ms, &b.digest)));
        let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
        let limit = query.limit.min(MAX_LISTED_TOKENS) as usize;
        Ok(tokens.into_iter().skip(offset).take(limit).collect())
    }

    async fn revoke_token(&self, digest: &str) -> Result<bool, RegistryError> {
        let now_ms = self.now_ms();
        self.write(TOKENS, |rows| {
            let token = match rows.get(digest)? {
                Some(value) => parse(value.value())?,
                None => return Ok(false),
            };
            if token.expires_at_ms <= now_ms {
                return Ok(false);
            }
            if token.revoked_at_ms.is_none() {
                rows.insert(digest, encode(&revoked(token, now_ms))?.as_slice())?;
            }
            Ok(true)
        })
    }

    async fn revoke_stream_tokens(&self, stream: &StreamName) -> Result<u64, RegistryError> {
        let now_ms = self.now_ms();
        self.write(TOKENS, |rows| {
            let mut changed = Vec::new();
            for row in rows.iter()? {
                let token = parse(row?.1.value())?;
                let is_of_stream = token.app == stream.app() && token.stream.as_deref() == Some(stream.stream_id());
                if is_of_stream && token.revoked_at_ms.is_none() && now_ms < token.expires_at_ms {
                    changed.push(revoked(token, now_ms));
                }
            }
            for token in &changed {
                rows.insert(token.digest.as_str(), encode(token)?.as_slice())?;
            }
            Ok(changed.len() as u64)
        })
    }

    async fn revocations(&self, since_ms: u64) -> Result<Revocations, RegistryError> {
        let at_ms = self.now_ms();
        let is_since = |token: &TokenDocument| token.revoked_at_ms.is_some_and(|revoked_ms| since_ms <= revoked_ms);
        let tokens = self
            .unexpired()?
            .into_iter()
            .filter(is_since)
            .map(|token| Revocation { digest: token.digest, expires_at_ms: token.expires_at_ms });
        Ok(Revocations { tokens: tokens.collect(), at_ms })
    }
}

impl Embedded {
    /// The tokens that have not expired, by digest.
    fn unexpired(&self) -> Result<Vec<TokenDocument>, RegistryError> {
        let now_ms = self.now_ms();
        let mut tokens: Vec<TokenDocument> = self.read_all(TOKENS)?;
        tokens.retain(|token| now_ms < token.expires_at_ms);
        Ok(tokens)
    }
}

fn parse(value: &[u8]) -> Result<TokenDocument, Cause> {
    Ok(serde_json::from_slice(value)?)
}

fn revoked(token: TokenDocument, now_ms: u64) -> TokenDocument {
    TokenDocument { revoked_at_ms: Some(now_ms), ..token }
}

const TOKENS: Table = TableDefinition::new("tokens");
