//! Tokens in MongoDB: `{ _id, app, stream, grants, kind, not_before, expire_at, created_at,
//! used_at, revoked_at }`, the times as dates, so that the database evaluates them.

use headwater_api::StreamName;
use headwater_api::documents::{Grant, Revocations, TokenDocument, TokenKind};
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ReturnDocument;

use super::values::{collect, decode_field, to_bson, to_i64};
use super::{MongoDb, failure, schema};
use crate::tokens::{MAX_LISTED_TOKENS, checked};
use crate::{RegistryError, TokenQuery, TokenRefusal, TokenUse, Tokens};

impl Tokens for MongoDb {
    async fn create_token(&self, token: &TokenDocument) -> Result<(), RegistryError> {
        let attempted = format!("create token {}", token.digest);
        let tokens = self.collection(schema::TOKENS, &attempted).await?;
        let row = encode(token).map_err(|e| self.call_failed(&attempted, e))?;
        match self.attempt(&attempted, tokens.insert_one(row).into_future()).await {
            Ok(_) => Ok(()),
            Err(e) if failure::is_duplicate(&e) => {
                Err(RegistryError::Exists { what: "token", id: token.digest.clone() })
            }
            Err(e) => Err(e),
        }
    }

    /// The update writes `used_at` only between the token's dates, by the database's clock. Whether
    /// it did decides. A refused token is read again for the reason.
    async fn consume_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<TokenUse, RegistryError> {
        let attempted = format!("consume a token of stream {stream}");
        let tokens = self.collection(schema::TOKENS, &attempted).await?;
        let bson = |value: mongodb::error::Result<Bson>| value.map_err(|e| self.call_failed(&attempted, e));
        let filter = doc! {
            "_id": digest,
            "app": stream.app(),
            "stream": { "$in": [stream.stream_id(), null] },
            "grants": bson(to_bson(&grants))?,
            "kind": bson(to_bson(&TokenKind::OneTime))?,
            "used_at": null,
            "revoked_at": null,
        };
        let is_valid = doc! { "$and": [
            { "$lte": ["$not_before", "$$NOW"] },
            { "$lt": ["$$NOW", "$expire_at"] },
        ] };
        let used = doc! { "$set": { "used_at": { "$cond": [is_valid, "$$NOW", null] } } };
        let call = tokens.find_one_and_update(filter, vec![used]).return_document(ReturnDocument::After);
        if let Some(row) = self.attempt(&attempted, call.into_future()).await? {
            let token = decode(&row).map_err(|e| self.call_failed(&attempted, e))?;
            if token.used_at_ms.is_some() {
                return Ok(TokenUse::Granted(token));
            }
        }
        Ok(match self.check_token(digest, stream, grants).await? {
            // It has become valid in between: the next attempt would succeed.
            TokenUse::Granted(_) => TokenUse::Refused(TokenRefusal::NotYetValid),
            refused => refused,
        })
    }

    async fn check_token(&self, digest: &str, stream: &StreamName, grants: Grant) -> Result<TokenUse, RegistryError> {
        let attempted = format!("check a token of stream {stream}");
        let (found, now_ms) = read(self, &attempted, doc! { "_id": digest }, Vec::new()).await?.pop().unzip();
        Ok(checked(found, stream, grants, now_ms.unwrap_or(0)))
    }

    async fn token(&self, digest: &str) -> Result<Option<TokenDocument>, RegistryError> {
        let found = read(self, "read a token", doc! { "_id": digest }, Vec::new()).await?.pop();
        Ok(found.filter(|(token, now_ms)| *now_ms < token.kept_until_ms()).map(|(token, _)| token))
    }

    async fn tokens(&self, query: TokenQuery<'_>) -> Result<Vec<TokenDocument>, RegistryError> {
        let mut filter = doc! { "app": query.app };
        if let Some(stream) = query.stream {
            filter.insert("stream", stream);
        }
        let page = vec![
            doc! { "$sort": { "created_at": -1, "_id": 1 } },
            doc! { "$skip": to_i64(query.offset) },
            doc! { "$limit": to_i64(query.limit.min(MAX_LISTED_TOKENS)) },
        ];
        if query.limit == 0 {
            // `$limit` must be positive.
            return Ok(Vec::new());
        }
        Ok(unexpired(read(self, &format!("list the tokens of app {}", query.app), filter, page).await?))
    }

    async fn revoke_token(&self, digest: &str) -> Result<bool, RegistryError> {
        let attempted = "revoke a token";
        let tokens = self.collection(schema::TOKENS, attempted).await?;
        let call = tokens.find_one_and_update(doc! { "_id": digest }, vec![revocation()]);
        let call = call.return_document(ReturnDocument::After);
        let row = self.attempt(attempted, call.into_future()).await?;
        Ok(row.is_some_and(|row| row.get_datetime("revoked_at").is_ok()))
    }

    async fn revoke_tokens(&self, app: &str, stream_id: Option<&str>) -> Result<u64, RegistryError> {
        let attempted = format!("revoke tokens of app {app}");
        let tokens = self.collection(schema::TOKENS, &attempted).await?;
        let mut filter = doc! { "app": app, "revoked_at": null };
        if let Some(stream_id) = stream_id {
            filter.insert("stream", stream_id);
        }
        let call = tokens.update_many(filter, vec![revocation()]);
        Ok(self.attempt(&attempted, call.into_future()).await?.modified_count)
    }

    async fn revocations(&self, since_ms: u64) -> Result<Revocations, RegistryError> {
        let since = DateTime::from_millis(to_i64(since_ms));
        let filter = doc! { "revoked_at": { "$gte": since } };
        let by_digest = vec![doc! { "$sort": { "_id": 1 } }];
        let found = read(self, "list the revoked tokens", filter, by_digest).await?;
        let at_ms = found.first().map_or(since_ms, |(_, now_ms)| *now_ms);
        let known = found.into_iter().filter(|(token, now_ms)| *now_ms < token.kept_until_ms());
        Ok(Revocations { tokens: known.map(|(token, _)| token.into()).collect(), at_ms })
    }
}

/// The tokens that match, each with the database's Unix time in milliseconds. `stages` sort and
/// limit them.
async fn read(
    registry: &MongoDb,
    attempted: &str,
    filter: Document,
    stages: Vec<Document>,
) -> Result<Vec<(TokenDocument, u64)>, RegistryError> {
    let tokens = registry.collection(schema::TOKENS, attempted).await?;
    let mut pipeline = vec![doc! { "$match": filter }];
    pipeline.extend(stages);
    pipeline.push(doc! { "$addFields": { "now": "$$NOW" } });
    let found = registry.attempt(attempted, collect(tokens.aggregate(pipeline))).await?;
    let decoded = found.iter().map(|row| Ok((decode(row)?, unix_ms(row, "now").unwrap_or(0))));
    decoded.collect::<mongodb::error::Result<_>>().map_err(|e| registry.call_failed(attempted, e))
}

/// Expired tokens remain known for some time, but are listed nowhere.
fn unexpired(found: Vec<(TokenDocument, u64)>) -> Vec<TokenDocument> {
    let live = found.into_iter().filter(|(token, now_ms)| *now_ms < token.expires_at_ms);
    live.map(|(token, _)| token).collect()
}

/// The update that revokes a token, unless it is revoked.
fn revocation() -> Document {
    doc! { "$set": { "revoked_at": { "$cond": [{ "$eq": ["$revoked_at", null] }, "$$NOW", "$revoked_at"] } } }
}

fn encode(token: &TokenDocument) -> mongodb::error::Result<Document> {
    let date = |ms: u64| Bson::DateTime(DateTime::from_millis(to_i64(ms)));
    Ok(doc! {
        "_id": &token.digest,
        "app": &token.app,
        "stream": token.stream.as_deref(),
        "grants": to_bson(&token.grants)?,
        "kind": to_bson(&token.kind)?,
        "not_before": date(token.not_before_ms),
        "expire_at": date(token.expires_at_ms),
        "created_at": date(token.created_at_ms),
        "used_at": token.used_at_ms.map_or(Bson::Null, date),
        "revoked_at": token.revoked_at_ms.map_or(Bson::Null, date),
    })
}

fn decode(row: &Document) -> mongodb::error::Result<TokenDocument> {
    Ok(TokenDocument {
        digest: decode_field(row, "_id")?,
        app: decode_field(row, "app")?,
        stream: decode_field(row, "stream")?,
        grants: decode_field(row, "grants")?,
        kind: decode_field(row, "kind")?,
        not_before_ms: unix_ms(row, "not_before").unwrap_or(0),
        expires_at_ms: unix_ms(row, "expire_at").unwrap_or(0),
        created_at_ms: unix_ms(row, "created_at").unwrap_or(0),
        used_at_ms: unix_ms(row, "used_at"),
        revoked_at_ms: unix_ms(row, "revoked_at"),
    })
}

/// A date in Unix milliseconds; `None` if it is missing or null.
fn unix_ms(row: &Document, field: &str) -> Option<u64> {
    row.get_datetime(field).ok().map(|date| date.timestamp_millis().max(0) as u64)
}
