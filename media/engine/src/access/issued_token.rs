//! Makes JSON web tokens for publishers and viewers. Verifying them is not done here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_api::secret::Secret;
use ring::hmac;
use serde::Serialize;
use serde_json::Value;

/// Makes a JSON web token (RFC 7519), signed with HS256 (RFC 7518 §3.2).
///
/// # Errors
/// If the claims cannot be serialized.
pub fn sign_jwt(claims: &impl Serialize, key: &Secret) -> Result<Secret, serde_json::Error> {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?);
    let signed = format!("{header}.{payload}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.reveal().as_bytes()), signed.as_bytes());
    Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))))
}

/// The Unix time of expiry that the payload of a JSON web token claims, in seconds; `None` if it is
/// not such a token. The signature is not verified.
pub fn claimed_expiry(token: &str) -> Option<u64> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // Saturates.
    Some(claims.get("exp")?.as_f64()?.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_token_equals_that_of_another_library() {
        #[derive(Serialize)]
        struct Claims {
            #[serde(rename = "streamId")]
            stream_id: &'static str,
            exp: u64,
        }
        // PyJWT 2.15.1: jwt.encode({"streamId": "a", "exp": 2000000000}, "0123456789abcdef" * 2)
        let expected = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdHJlYW1JZCI6ImEiLCJleHAiOjIwMDAwMDAwMDB9.\
                        GhDGOVPfj_YUDJ5bfK47z2WU1HR99feM-fe31BRyma4";
        let key = Secret::new("0123456789abcdef".repeat(2));
        let token = sign_jwt(&Claims { stream_id: "a", exp: 2_000_000_000 }, &key).unwrap();
        assert_eq!(token.reveal(), expected);
        assert_eq!(claimed_expiry(token.reveal()), Some(2_000_000_000));
    }

    #[test]
    fn expiry_is_read_only_from_a_json_web_token() {
        let with_payload = |payload: &str| claimed_expiry(&format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload)));
        assert_eq!(with_payload(r#"{"exp":1.5}"#), Some(2));
        assert_eq!(with_payload(r#"{"exp":1e300}"#), Some(u64::MAX));
        assert_eq!(with_payload(r#"{"exp":-1}"#), Some(0));
        for payload in ["", "{}", r#"{"exp":"1"}"#, "[1]"] {
            assert_eq!(with_payload(payload), None, "{payload}");
        }
        for token in ["", "a.b", "a.b.c", "a.e30.c.d", "a..c"] {
            assert_eq!(claimed_expiry(token), None, "{token}");
        }
    }
}
