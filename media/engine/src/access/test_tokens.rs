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

/// Made by PyJWT 2.15.1 from the claims of `play_token`; RS256, `kid` `rsa`.
pub(crate) const PYJWT_RS256: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJzdHJlYW1JZCI6ImEiLCJ0eXBlIjoicGx",
    "heSIsImV4cCI6NDAwMDAwMDAwMH0.wFLC-gXA2WgSsfYsL8LVMRBil6hDg48fD0fMgSfT3pFwXvQwBmnWpxz7dWK",
    "1-XGZkKXHw2_pdVw8YCmgmL4m9gLo2noMUx39ttQXq3G4qNCMF1svATmKQ-",
    "J61VWMDrY_gvD2bojh0RyKkYHX1XZvmAsHAzQ6fzrklA7hRI3iSkT9xQ2g3c6pPTmiWFIA15WKPPrUB5ur1Di2-",
    "zyioQcZJG0Dm_xxi27i1YyEMx2NU00-Jjb79bXEOZiVPnS8Yie7OeXiJYXDM-",
    "uOd_UMPwkppiC5jsjWISWNDMmZLhgyLwqQkXNQAl2y91SR4FPRG3I3lRRQFq0i42kb7VJRNGVh8Q",
);

/// The same; ES256, `kid` `ec`.
pub(crate) const PYJWT_ES256: &str = concat!(
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIiwidHlwIjoiSldUIn0.eyJzdHJlYW1JZCI6ImEiLCJ0eXBlIjoicGxh",
    "eSIsImV4cCI6NDAwMDAwMDAwMH0.lB0429NBM64Rii-",
    "3n4GHQp_fjYgNyvZ10iazQoGXt8EiTKB59Ln1C2bxTjcDLwG3ADFuG5PEtaDhizHhhaaJlQ",
);

/// The JWK set with the public keys of both.
pub(crate) const JWK_SET: &str = concat!(
    r#"{"keys":[{"kty":"RSA","kid":"rsa","use":"sig","e":"AQAB","n":"w49otNRAh1Nl7sy89MThz_J2Xe"#,
    r#"Cry3UvxOD-r8olqehrtxNBDGTYc7Du3DdGKV4WvTVB44V-7kknsf3RtPGzSzByKAUSOb1y-6_7SsJOV8yQVijd9_"#,
    r#"ztSGVTnQIB0z7ufpQH13Xmf6xHYQbp74n1_508UlsBhf-LrXDSSFnE82o2Jik9D5e3VfCmwvP_IFmzq2rS-1b8CO"#,
    r#"2IO8FHLloDJoEHOAvhCo5jwctnTax5svlJtP2OgPyyDCdt71c5QI0FFR1THpSMKfCkQ9etNWl4AoFp2Jwwyim1pd"#,
    r#"RwEOODPingIFGVLSL4wS7z3WUApqZoEQFT1VIlglieJl7avoaTHQ"},{"kty":"EC","kid":"ec","crv":"P-2"#,
    r#"56","x":"oTmzMvXo-Q05KMZ5EDTUf1-DixVzoFxtrWeZ_9-g_Qs","y":"8TmyY-gmhX_nFe2-bzsFLL2syoRxN"#,
    r#"6d0HJUfZa_nlZ0"}]}"#,
);
