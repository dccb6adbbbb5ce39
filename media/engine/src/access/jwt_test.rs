//! Tests of JSON web tokens: valid ones, and wrong ones of every kind.

use super::*;
use crate::access::test_tokens::{KEY, PYJWT_HS256, hs256, message, play_token, signed};

const NOW_S: u64 = 1_800_000_000;

fn verify(token: &str) -> Result<Claims, AccessError> {
    Claims::verify_hs256(token, &DecodingKey::from_secret(KEY.as_bytes()).unwrap())
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
    check(r#"{"type":"play"}"#, Err(AccessError::TokenInvalid));
    for payload in [r#"{"type":"play","exp":"1800000060"}"#, r#"{"type":"play","exp":1800000060,"nbf":"0"}"#] {
        check(payload, Err(AccessError::TokenInvalid));
    }
    check(&format!(r#"{{{valid},"exp":1900000000}}"#), Err(AccessError::TokenInvalid));
    check("[]", Err(AccessError::TokenInvalid));
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

/// Prints the CPU time of a check; `cargo test --release … -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
#[allow(clippy::print_stdout)]
fn time_of_a_check() {
    let stream = StreamName::parse("live/a").unwrap();
    let key = DecodingKey::from_secret(KEY.as_bytes()).unwrap();
    let started = cpu_time();
    for _ in 0..10_000 {
        let claims = Claims::verify_hs256(PYJWT_HS256, &key).unwrap();
        claims.check(Grant::Play, &stream, NOW_S * 1_000).unwrap();
    }
    println!("HS256: {:?} per check", (cpu_time() - started) / 10_000);
}

/// CPU time of this thread.
fn cpu_time() -> std::time::Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
