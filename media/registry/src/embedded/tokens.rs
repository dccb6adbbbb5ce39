//! Tokens in the file: one table of all, and one of the revoked ones, which engines read every few
//! seconds.

use headwater_api::StreamName;
use headwater_api::documents::{Grant, Revocations, TokenDocument};
use redb::{ReadableTable as _, TableDefinition};

use super::Embedded;
use super::file::{Table, encode};
use crate::error::Cause;
use crate::tokens::{MAX_LISTED_TOKENS, checked, refusal};
use crate::{RegistryError, TokenQuery, TokenRefusal, TokenUse, Tokens};

impl Tokens for Embedded {
    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        self.remove_forgotten_tokens()?;
        let created = self.write(TOKENS, |rows| {
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
        // Most callers present something that is no valid token: that must not cost a write.
        let checked = self.check_token(digest, stream, grants).await?;
        if matches!(checked, TokenUse::Refused(_)) {
            return Ok(checked);
        }
        let now_ms = self.now_ms();
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

    async fn check_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<TokenUse, RegistryError> {
        let found = self.read_one(TOKENS, digest)?;
        Ok(checked(found, stream, grants, self.now_ms()))
    }

    async fn token(&self, digest: &str) -> Result<Option<TokenDocument>, RegistryError> {
        let now_ms = self.now_ms();
        Ok(self.read_one::<TokenDocument>(TOKENS, digest)?.filter(|token| now_ms < token.kept_until_ms()))
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
        match self.read_one::<TokenDocument>(TOKENS, digest)? {
            Some(token) if token.revoked_at_ms.is_some() => Ok(true),
            Some(token) if self.now_ms() < token.kept_until_ms() => self.revoke(vec![token]).map(|()| true),
            _ => Ok(false),
        }
    }

    async fn revoke_tokens(&self, app: &str, stream_id: Option<&str>) -> Result<u64, RegistryError> {
        let now_ms = self.now_ms();
        let mut tokens: Vec<TokenDocument> = self.read_all(TOKENS)?;
        tokens.retain(|token| {
            let is_meant = token.app == app && (stream_id.is_none() || token.stream.as_deref() == stream_id);
            is_meant && token.revoked_at_ms.is_none() && now_ms < token.kept_until_ms()
        });
        let count = tokens.len() as u64;
        if count > 0 {
            self.revoke(tokens)?;
        }
        Ok(count)
    }

    async fn revocations(&self, since_ms: u64) -> Result<Revocations, RegistryError> {
        let at_ms = self.now_ms();
        let mut revoked: Vec<TokenDocument> = self.read_all(REVOKED)?;
        revoked.retain(|token| {
            token.revoked_at_ms.is_some_and(|revoked_ms| since_ms <= revoked_ms) && at_ms < token.kept_until_ms()
        });
        Ok(Revocations { tokens: revoked.into_iter().map(TokenDocument::into).collect(), at_ms })
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

    /// Marks tokens as revoked. First in the table that engines read: after a crash in between they
    /// are revoked, and revoking them again completes it.
    fn revoke(&self, tokens: Vec<TokenDocument>) -> Result<(), RegistryError> {
        let now_ms = self.now_ms();
        let revoked = |token: TokenDocument| TokenDocument { revoked_at_ms: Some(now_ms), ..token };
        let digests: Vec<_> = tokens.iter().map(|token| token.digest.clone()).collect();
        self.write(REVOKED, |rows| {
            for token in tokens {
                let token = revoked(token);
                rows.insert(token.digest.as_str(), encode(&token)?.as_slice())?;
            }
            Ok(())
        })?;
        self.write(TOKENS, |rows| {
            for digest in &digests {
                // It may have been used meanwhile.
                let Some(token) = rows.get(digest.as_str())?.map(|row| parse(row.value())).transpose()? else {
                    continue;
                };
                rows.insert(digest.as_str(), encode(&revoked(token))?.as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes tokens that need not be known any longer, at most every [`CLEANING_INTERVAL_MS`]:
    /// all of them are read.
    fn remove_forgotten_tokens(&self) -> Result<(), RegistryError> {
        let now_ms = self.now_ms();
        if !self.is_time_to_clean(now_ms, CLEANING_INTERVAL_MS) {
            return Ok(());
        }
        for table in [REVOKED, TOKENS] {
            self.write(table, |rows| {
                rows.retain(|_, value| parse(value).is_ok_and(|token| now_ms < token.kept_until_ms()))?;
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn parse(value: &[u8]) -> Result<TokenDocument, Cause> {
    Ok(serde_json::from_slice(value)?)
}

const TOKENS: Table = TableDefinition::new("tokens");
const REVOKED: Table = TableDefinition::new("revoked tokens");
const CLEANING_INTERVAL_MS: u64 = 10 * 60 * 1_000;
