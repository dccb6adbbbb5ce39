//! Tests of JSON web tokens: valid ones, and wrong ones of every kind.

use super::*;
use crate::access::jwk_set::JwkSet;
use crate::access::test_tokens::{
    JWK_SET, KEY, PYJWT_ES256, PYJWT_HS256, PYJWT_RS256, hs256, message, play_token, signed,
};

const NOW_S: u64 = 1_800_000_000;

fn verify(token: &str) -> Result<Claims, AccessError> {
    match SignatureHeader::parse(token)?.algorithm {
        Algorithm::HS256 => Claims::verify(token, Algorithm::HS256, &DecodingKey::from_secret(KEY.as_bytes()).unwrap()),
        _ => Err(AccessError::TokenInvalid),
    }
}

fn check(payload: &str, expected: Result<(), AccessError>) {
    let stream = StreamName::parse("live/a").unwrap();
    let outcome = verify(&hs256(payload)).and_then(|claims| claims.check(Grant::Play, &stream, NOW_S * 1_000));
    assert_eq!(outcome, expected, "{payload}");
}

#[test]
fn claims_decide_what_a_token_permits() {
    let valid = r#""type":"play","exp":1800000060"#;
    check(&format!("{{{valid}}}"), Ok(()));
    check(&format!(r#"{{{valid},"streamId":"a","app":"live","nbf":1799999000,"iss":1,"aud":"x"}}"#), Ok(()));
    check(&format!(r#"{{{valid},"streamId":"*"}}"#), Ok(()));
    check(r#"{"type":"play","exp":1800000060.5}"#, Ok(()));
    check(&format!(r#"{{{valid},"streamId":"b"}}"#), Err(AccessError::TokenWrongStream));
    check(&format!(r#"{{{valid},"streamId":"A"}}"#), Err(AccessError::TokenWrongStream));
    check(&format!(r#"{{{valid},"streamId":""}}"#), Err(AccessError::TokenWrongStream));
    check(&format!(r#"{{{valid},"app":"other"}}"#), Err(AccessError::TokenWrongApp));
    check(r#"{"type":"publish","exp":1800000060}"#, Err(AccessError::TokenWrongType));
    check(r#"{"exp":1800000060}"#, Err(AccessError::TokenWrongType));
    check(r#"{"type":"play"}"#, Err(AccessError::TokenWithoutExpiry));
    for payload in [r#"{"type":"play","exp":"1800000060"}"#, r#"{"type":"play","exp":1800000060,"nbf":"0"}"#] {
        check(payload, Err(AccessError::TokenInvalid));
    }
    check(&format!(r#"{{{valid},"exp":1900000000}}"#), Err(AccessError::TokenInvalid));
    check("[]", Err(AccessError::TokenInvalid));
}

#[test]
fn token_with_another_signature_is_not_signed_with_the_key() {
    let [key, other] = [KEY, "another key of thirty-two bytes!"].map(Secret::new);
    assert!(is_signed_with(PYJWT_HS256, &key) && !is_signed_with(PYJWT_HS256, &other));
    let (signed, _) = PYJWT_HS256.rsplit_once('.').unwrap();
    assert!(!is_signed_with(&format!("{signed}.AAAA"), &key) && !is_signed_with(signed, &key));
}

#[test]
fn token_made_by_pyjwt_is_accepted() {
    let claims = verify(PYJWT_HS256).unwrap();
    assert_eq!(claims.check(Grant::Play, &StreamName::parse("live/a").unwrap(), NOW_S * 1_000), Ok(()));
    assert_eq!(claims.expires_at_ms(), 4_000_000_000_000);
}

#[test]
fn thirty_seconds_of_difference_between_clocks_are_tolerated() {
    let at = |exp: i64| check(&format!(r#"{{"type":"play","exp":{exp}}}"#), Err(AccessError::TokenExpired));
    check(r#"{"type":"play","exp":1799999971}"#, Ok(()));
    at(1_799_999_970);
    at(0);
    at(-5);
    check(r#"{"type":"play","exp":1800000060,"nbf":1800000030}"#, Ok(()));
    check(r#"{"type":"play","exp":1800000060,"nbf":1800000031}"#, Err(AccessError::TokenNotYetValid));
    check(r#"{"type":"play","exp":1e300}"#, Ok(()));
    assert_eq!(verify(&hs256(r#"{"exp":1e300}"#)).unwrap().expires_at_ms(), u64::MAX);
    assert_eq!(verify(&hs256(r#"{"exp":1800000060}"#)).unwrap().expires_at_ms(), 1_800_000_060_000);
}

#[test]
fn only_hs256_with_the_key_of_the_app_is_accepted() {
    let payload = r#"{"type":"play","exp":1800000060}"#;
    assert!(verify(&hs256(payload)).is_ok());
    let other_key = signed(r#"{"alg":"HS256"}"#, payload, b"another key of thirty-two bytes!");
    assert_eq!(verify(&other_key), Err(AccessError::TokenInvalid));
    // `none`, in every spelling, with and without a signature, and other algorithms.
    for alg in ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        assert_eq!(verify(&signed(&header, payload, KEY.as_bytes())), Err(AccessError::TokenInvalid), "{alg}");
        assert_eq!(verify(&format!("{}.", message(&header, payload))), Err(AccessError::TokenInvalid), "{alg}");
    }
    // Extensions that a verifier must understand (RFC 7515 §4.1.11).
    let critical = signed(r#"{"alg":"HS256","crit":["x"],"x":1}"#, payload, KEY.as_bytes());
    assert_eq!(verify(&critical), Err(AccessError::TokenInvalid));
}

#[test]
fn token_that_is_truncated_modified_or_too_long_is_refused() {
    let token = play_token("a", NOW_S);
    for end in 0..token.len() {
        assert_eq!(verify(&token[..end]), Err(AccessError::TokenInvalid), "{end}");
    }
    for at in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(verify(&changed).is_err(), "{changed}");
        }
    }
    for garbage in ["", ".", "..", "...", "a.b.c", "ä.ö.ü"] {
        assert_eq!(verify(garbage), Err(AccessError::TokenInvalid));
    }
    let long = |bytes: usize| hs256(&format!(r#"{{"type":"play","exp":1800000060,"x":"{}"}}"#, "x".repeat(bytes)));
    assert!(verify(&long(6_000)).is_ok());
    assert_eq!(verify(&long(7_000)), Err(AccessError::TokenTooLong));
    assert_eq!(verify(&"a".repeat(1 << 20)), Err(AccessError::TokenTooLong));
    // Unknown claims are skipped without recursion.
    let deep = format!(r#""x":{}{}"#, "[".repeat(2_500), "]".repeat(2_500));
    assert!(verify(&hs256(&format!(r#"{{"exp":1,{deep}}}"#))).is_ok());
    let header = format!(r#"{{"alg":"HS256",{deep}}}"#);
    assert_eq!(verify(&signed(&header, r#"{"exp":1}"#, KEY.as_bytes())), Err(AccessError::TokenInvalid));
}

#[test]
fn public_keys_verify_what_pyjwt_has_signed_and_no_hmac_made_with_them() {
    let set = JwkSet::parse(JWK_SET.as_bytes()).unwrap();
    for (token, id, algorithm) in [(PYJWT_RS256, "rsa", Algorithm::RS256), (PYJWT_ES256, "ec", Algorithm::ES256)] {
        let header = SignatureHeader::parse(token).unwrap();
        assert_eq!(header, SignatureHeader { algorithm, key_id: Some(id.to_owned()) });
        let key = &set.find(Some(id), algorithm).unwrap().key;
        let claims = Claims::verify(token, algorithm, key).unwrap();
        assert_eq!(claims.check(Grant::Play, &StreamName::parse("live/a").unwrap(), NOW_S * 1_000), Ok(()));
        // The same key for another algorithm, whatever the header says.
        for other in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256] {
            if other != algorithm {
                assert_eq!(Claims::verify(token, other, key), Err(AccessError::TokenInvalid), "{other:?}");
            }
        }
        let payload = r#"{"type":"play","exp":4000000000}"#;
        let public = set_text_of(id);
        let confused = signed(&format!(r#"{{"alg":"HS256","kid":"{id}"}}"#), payload, public.as_bytes());
        assert_eq!(Claims::verify(&confused, Algorithm::HS256, key), Err(AccessError::TokenInvalid));
        for at in (0..token.len()).step_by(7) {
            let mut bytes = token.to_owned().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Claims::verify(&changed, algorithm, key).is_err(), "{at}");
        }
    }
}

/// The text of a public key, as a confused verifier would use it.
fn set_text_of(id: &str) -> String {
    let set: serde_json::Value = serde_json::from_str(JWK_SET).unwrap();
    set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == id).unwrap().to_string()
}

/// Prints the CPU time of a check; `cargo test --release … -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
#[allow(clippy::print_stdout)]
fn time_of_a_check() {
    let stream = StreamName::parse("live/a").unwrap();
    let own_key = DecodingKey::from_secret(KEY.as_bytes()).unwrap();
    let set = JwkSet::parse(JWK_SET.as_bytes()).unwrap();
    for token in [PYJWT_HS256, PYJWT_RS256, PYJWT_ES256] {
        let started = cpu_time();
        for _ in 0..10_000 {
            let SignatureHeader { algorithm, key_id } = SignatureHeader::parse(token).unwrap();
            let key = set.find(key_id.as_deref(), algorithm).map_or(&own_key, |public| &public.key);
            Claims::verify(token, algorithm, key).unwrap().check(Grant::Play, &stream, NOW_S * 1_000).unwrap();
        }
        let algorithm = SignatureHeader::parse(token).unwrap().algorithm;
        println!("{algorithm:?}: {:?} per check", (cpu_time() - started) / 10_000);
    }
}

/// CPU time of this thread.
fn cpu_time() -> std::time::Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
