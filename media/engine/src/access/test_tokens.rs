//! Makes tokens for tests, by hand, so that they can be wrong in every way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;

/// An HS256 key of 32 bytes.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A token of this header and payload, with an HMAC of them.
pub(crate) fn signed(header: &str, payload: &str, key: &[u8]) -> String {
    let message = message(header, payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag))
}

/// The part of a token that is signed.
pub(crate) fn message(header: &str, payload: &str) -> String {
    format!("{}.{}", BASE64.encode(header), BASE64.encode(payload))
}

/// An HS256 token of this payload, signed with [`KEY`].
pub(crate) fn hs256(payload: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, payload, KEY.as_bytes())
}

/// An HS256 token that permits to play `id` until `exp`, in Unix seconds.
pub(crate) fn play_token(id: &str, exp: u64) -> String {
    hs256(&format!(r#"{{"streamId":"{id}","type":"play","exp":{exp}}}"#))
}

/// Made by PyJWT 2.15.1: `jwt.encode({"streamId": "a", "type": "play", "exp": 4000000000}, KEY)`.
pub(crate) const PYJWT_HS256: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdHJlYW1JZCI6ImEiLCJ0eXBlIjoicGxheSIsImV4cCI6NDA",
    "wMDAwMDAwMH0.5VWxfmRAZzWTqmqFtindIZFPPFdCClyXCDlm0x8balo",
);
