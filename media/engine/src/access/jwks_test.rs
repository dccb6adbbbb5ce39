//! Tests of the cached keys of a JWKS URL, with an issuer on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::access::test_tokens::JWK_SET;

/// A server that answers every request with the same response.
struct Issuer {
    address: SocketAddr,
    response: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(response: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (response, requests) = (Arc::new(Mutex::new(response)), Arc::new(AtomicUsize::new(0)));
        let (answer, counter) = (Arc::clone(&response), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let read = socket.read(&mut request).await.unwrap_or(0);
                assert!(request[..read].starts_with(b"GET /keys?v=1 HTTP/1.1\r\n"), "{:?}", &request[..read]);
                counter.fetch_add(1, Ordering::Relaxed);
                let text = answer.lock().unwrap().clone();
                // The client may have had enough.
                let _ = socket.write_all(text.as_bytes()).await;
            }
        });
        Self { address, response, requests }
    }

    fn jwks(&self) -> Jwks {
        let roots = rustls::RootCertStore::empty();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let tls =
            tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
        Jwks::new(JwksClient::for_test(&format!("http://{}/keys?v=1", self.address), Arc::new(tls)))
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn answer(&self, response: String) {
        *self.response.lock().unwrap() = response;
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn find(jwks: &Jwks, id: &str, algorithm: Algorithm) -> Result<(), AccessError> {
    jwks.find(Some(id), algorithm).await.map(drop)
}

#[tokio::test]
async fn known_keys_are_fetched_once_and_used_with_their_algorithm_only() {
    let issuer = Issuer::start(ok(JWK_SET)).await;
    let jwks = issuer.jwks();
    for _ in 0..10 {
        assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Ok(()));
        assert_eq!(find(&jwks, "ec", Algorithm::ES256).await, Ok(()));
    }
    assert!(jwks.find(None, Algorithm::ES256).await.is_ok(), "the only one of its algorithm");
    assert_eq!(issuer.requests(), 1);
    for (id, algorithm) in [("rsa", Algorithm::ES256), ("ec", Algorithm::RS256), ("rsa", Algorithm::HS256)] {
        assert_eq!(find(&jwks, id, algorithm).await, Err(AccessError::TokenInvalid), "{id}");
    }
}

#[tokio::test]
async fn unknown_keys_cause_a_fetch_at_most_every_30_seconds() {
    let issuer = Issuer::start(ok(JWK_SET)).await;
    let jwks = issuer.jwks();
    assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Ok(()));
    for n in 0..1_000 {
        assert_eq!(find(&jwks, &n.to_string(), Algorithm::RS256).await, Err(AccessError::TokenInvalid));
    }
    assert_eq!(issuer.requests(), 1);
    issuer.answer(ok(&JWK_SET.replace("\"rsa\"", "\"next\"")));
    tokio::time::pause();
    tokio::time::advance(UNKNOWN_KEY_INTERVAL).await;
    tokio::time::resume();
    assert_eq!(find(&jwks, "next", Algorithm::RS256).await, Ok(()));
    assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Err(AccessError::TokenInvalid), "withdrawn");
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn old_keys_are_fetched_again_and_remain_while_the_issuer_is_unreachable() {
    let issuer = Issuer::start(ok(JWK_SET)).await;
    let jwks = issuer.jwks();
    assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Ok(()));
    issuer.answer("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned());
    tokio::time::pause();
    tokio::time::advance(MAX_AGE).await;
    tokio::time::resume();
    for _ in 0..10 {
        assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Ok(()));
    }
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn answers_that_are_no_jwk_set_are_refused() {
    let redirect = "HTTP/1.1 302 Found\r\nlocation: /keys?v=1\r\ncontent-length: 0\r\n\r\n".to_owned();
    let long = ok(&format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20)));
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(2 << 20));
    for response in [redirect, long, endless, ok("{}"), ok("[]"), ok("<html>"), "nonsense\r\n\r\n".to_owned()] {
        let issuer = Issuer::start(response.clone()).await;
        let jwks = issuer.jwks();
        for _ in 0..3 {
            let outcome = find(&jwks, "rsa", Algorithm::RS256).await;
            assert_eq!(outcome, Err(AccessError::JwksUnavailable), "{}", &response[..40.min(response.len())]);
        }
        assert_eq!(issuer.requests(), 1);
    }
}

#[test]
fn symmetric_keys_and_keys_for_other_uses_are_ignored() {
    let parse = |key: &str| JwkSet::parse(format!("{{\"keys\":[{key}]}}").as_bytes()).unwrap().len();
    let (n, e) = ("A".repeat(342), "AQAB");
    assert_eq!(parse(&format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","kid":"1"}}"#)), 1);
    for ignored in [
        r#"{"kty":"oct","k":"AAAA","kid":"1","alg":"HS256"}"#.to_owned(),
        format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","use":"enc"}}"#),
        format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}","alg":"RS512"}}"#),
        r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#.to_owned(),
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(),
        r#"{"kty":"unknown"}"#.to_owned(),
        "1".to_owned(),
        "null".to_owned(),
    ] {
        assert_eq!(parse(&ignored), 0, "{ignored}");
    }
    assert_eq!(parse(&vec![r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#; 5_000].join(",")), 100);
}

/// Otherwise anybody could keep the keys from being fetched, by disconnecting.
#[tokio::test]
async fn fetch_goes_on_when_the_client_that_caused_it_disconnects() {
    let issuer = Issuer::start(ok(JWK_SET)).await;
    let jwks = issuer.jwks();
    let mut disconnecting = Box::pin(find(&jwks, "rsa", Algorithm::RS256));
    let first_poll = std::future::poll_fn(|cx| std::task::Poll::Ready(disconnecting.as_mut().poll(cx))).await;
    assert!(first_poll.is_pending());
    drop(disconnecting);
    assert_eq!(find(&jwks, "rsa", Algorithm::RS256).await, Ok(()));
    assert_eq!(issuer.requests(), 1);
}
