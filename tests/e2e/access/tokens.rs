//! Tokens made by hand, so that they can be wrong in every way. Must not know protocols.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::documents::{Grant, TokenDocument, TokenKind};
use ring::{digest, hmac};

/// The HS256 key of the apps.
pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";
/// A time that no test reaches, in Unix seconds.
pub(super) const FAR: u64 = 4_000_000_000;
/// Made by PyJWT 2.15.1: `jwt.encode({"streamId": "a", "type": "play", "exp": 4000000000}, KEY)`.
pub(super) const PYJWT: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
    eyJzdHJlYW1JZCI6ImEiLCJ0eXBlIjoicGxheSIsImV4cCI6NDAwMDAwMDAwMH0.5VWxfmRAZzWTqmqFtindIZFPPFdCClyXCDlm0x8balo";

/// A token of this header and these claims, signed with an HMAC.
pub(super) fn signed(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag))
}

/// A token of these claims without a signature: `alg` is `none`.
pub(super) fn unsigned(claims: &str) -> String {
    format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(claims))
}

/// A token of these claims, signed with [`KEY`].
pub(super) fn token(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims, KEY.as_bytes())
}

/// A token for this action on `id`.
pub(super) fn token_for(action: Grant, id: &str) -> String {
    token(&format!(r#"{{"streamId":"{id}","type":"{}","exp":{FAR}}}"#, action.as_str()))
}

/// What the registry knows a token by: of a JSON web token, what is signed.
fn digest_of(token: &str) -> String {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    sha256(&[signed])
}

/// Ant Media's hash: the SHA-256 of stream id, action and secret.
pub(super) fn hash_of(id: &str, action: Grant, secret: &str) -> String {
    sha256(&[id, action.as_str(), secret])
}

/// The SHA-256 of the joined parts in lower-case hexadecimal.
fn sha256(parts: &[&str]) -> String {
    let hash = digest::digest(&digest::SHA256, parts.concat().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The document of a token of `app` for all of its streams.
pub(super) fn document(token: &str, app: &str, grants: Grant, kind: TokenKind) -> TokenDocument {
    TokenDocument {
        digest: digest_of(token),
        app: app.to_owned(),
        stream: None,
        grants,
        kind,
        not_before_ms: 0,
        expires_at_ms: FAR * 1_000,
        created_at_ms: 0,
        used_at_ms: None,
        revoked_at_ms: None,
    }
}

#[test]
fn hash_is_that_of_ant_media() {
    // printf stream1playsecret | sha256sum
    let expected = "233e10ece077265fccae9207490faee00192690096b0a7d5a6211cfde327643e";
    assert_eq!(hash_of("stream1", Grant::Play, "secret"), expected);
}
