//! Tokens of an identity provider: PyJWT signs them with keys that a JWKS URL publishes.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_api::documents::{AppDocument, Grant, Policy};
use headwater_tests::publish::{self, Source};
use headwater_tests::{namespace, tools};
use serde::Deserialize;

use super::nodes::{Contents, Node};
use super::protocol::Protocol;
use super::tokens::{FAR, signed, unsigned};

/// An address of a private network, from which keys may be fetched.
const ISSUER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Prints the keys of the issuer as a JWK set and as PEM, and a token by its name.
const MAKE_TOKENS: &str = r#"
import json, jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

rsa_key, ec_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
stranger = rsa.generate_private_key(65537, 2048)
jwks = [
    jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True) | {"kid": "rsa", "use": "sig"},
    jwt.algorithms.ECAlgorithm.to_jwk(ec_key.public_key(), as_dict=True) | {"kid": "ec", "use": "sig"},
]
claims = {kind: {"streamId": "a", "type": kind, "exp": 4000000000} for kind in ["play", "publish"]}
tokens = {}
for kind in claims:
    for algorithm, key, kid in [("RS256", rsa_key, "rsa"), ("ES256", ec_key, "ec")]:
        encode = lambda changed={}, key=key, kid=kid: jwt.encode(claims[kind] | changed, key, algorithm, headers={"kid": kid})
        tokens[f"{kind} {algorithm}"] = encode()
        tokens[f"{kind} {algorithm} expired"] = encode({"exp": 1700000000})
        tokens[f"{kind} {algorithm} unknown kid"] = encode(kid="another")
    tokens[f"{kind} stranger"] = jwt.encode(claims[kind], stranger, "RS256", headers={"kid": "rsa"})
    tokens[f"{kind} RS512"] = jwt.encode(claims[kind], rsa_key, "RS512", headers={"kid": "rsa"})
pem = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
print(json.dumps({"jwks": json.dumps({"keys": jwks}), "pem": pem, "tokens": tokens}))
"#;

/// What the issuer publishes and has signed.
#[derive(Debug, Deserialize)]
struct Issued {
    jwks: String,
    /// The public RSA key.
    pem: String,
    tokens: HashMap<String, String>,
}

impl Issued {
    /// Makes keys and tokens. Returns `None` if PyJWT is not installed.
    fn new() -> Option<Self> {
        let python = tools::find_program("headwater-test-python")?;
        let output = Command::new(python).args(["-c", MAKE_TOKENS]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn token(&self, protocol: Protocol, name: &str) -> &str {
        &self.tokens[&format!("{} {name}", protocol.action().as_str())]
    }
}

/// A web server that answers every request with the same keys.
struct KeyServer {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    /// Starts a server at all addresses. It ends with the test.
    fn start(jwks: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, body) = (Arc::clone(&requests), jwks.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                // A client that disconnects is not an error.
                let _ = answer(client, &body);
            }
        });
        Self { port, requests }
    }

    fn url(&self, scheme: &str, host: Ipv4Addr) -> String {
        format!("{scheme}://{}/keys", SocketAddr::from((host, self.port)))
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut client: TcpStream, body: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let length = body.len();
    write!(client, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// An app for tokens of a JWKS URL.
fn app(name: &str, url: String, is_private: bool) -> AppDocument {
    AppDocument {
        publish: Policy::Jwt,
        play: Policy::Jwt,
        jwks_url: Some(url),
        jwks_private: is_private,
        ..AppDocument::open(name)
    }
}

#[test]
fn tokens_of_an_identity_provider_are_verified_with_the_keys_of_its_url() {
    let inner = "access::issuer::with_an_issuer_in_a_private_network";
    namespace::run_ignored_test(inner, ISSUER, Duration::from_secs(90)).unwrap();
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn with_an_issuer_in_a_private_network() {
    let Some(issued) = Issued::new() else { return };
    let (server, forbidden) = (KeyServer::start(&issued.jwks), KeyServer::start(&issued.jwks));
    let apps = vec![
        app("live", server.url("http", ISSUER), true),
        app("loopback", forbidden.url("http", Ipv4Addr::LOCALHOST), true),
        app("public", forbidden.url("https", ISSUER), false),
    ];
    let node = Node::start(&Contents { apps, ..Contents::default() }, &[]);
    let url = node.rtmp_url(&format!("live/a?token={}", issued.token(Protocol::RtmpPublish, "RS256")));
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    node.wait_live("live/a").unwrap();
    for protocol in Protocol::ALL {
        let kind = protocol.action().as_str();
        let claims = format!(r#"{{"streamId":"a","type":"{kind}","exp":{FAR}}}"#);
        // A public key used as an HMAC key, in both forms that a confused verifier may have it.
        let confused = |key: &str| signed(r#"{"alg":"HS256","kid":"rsa"}"#, &claims, key.as_bytes());
        let refused = [
            ("none", unsigned(&claims), "token_invalid"),
            ("PEM as HMAC key", confused(&issued.pem), "token_invalid"),
            ("JWK as HMAC key", confused(&issued.jwks), "token_invalid"),
            (
                "RS256 with an HMAC",
                signed(r#"{"alg":"RS256","kid":"rsa"}"#, &claims, issued.pem.as_bytes()),
                "token_invalid",
            ),
            ("a stranger's key", issued.token(protocol, "stranger").to_owned(), "token_invalid"),
            ("RS512", issued.token(protocol, "RS512").to_owned(), "token_invalid"),
            ("unknown kid", issued.token(protocol, "RS256 unknown kid").to_owned(), "token_invalid"),
            ("RS256, expired", issued.token(protocol, "RS256 expired").to_owned(), "token_expired"),
            ("ES256, expired", issued.token(protocol, "ES256 expired").to_owned(), "token_expired"),
        ];
        for (case, token, code) in refused {
            protocol.check_refused(node.at(), ("live", "a"), Some(&token), code, case);
        }
        if protocol.action() == Grant::Play {
            for algorithm in ["RS256", "ES256"] {
                let admitted = protocol.attempt(node.at(), "live", "a", Some(issued.token(protocol, algorithm)));
                admitted.unwrap_or_else(|e| panic!("{protocol:?}, {algorithm}: {e}"));
            }
        }
        let token = issued.token(protocol, "RS256");
        for app in ["loopback", "public"] {
            protocol.check_refused(node.at(), (app, "a"), Some(token), "jwks_unavailable", app);
        }
    }
    // One fetch for the first token, and one for the unknown `kid`.
    assert!((1..=3).contains(&server.requests()), "{} requests for the keys", server.requests());
    assert_eq!(forbidden.requests(), 0, "keys were fetched from where they must not be");
    assert!(publisher.is_running());
    let secrets: Vec<_> = issued.tokens.values().map(String::as_str).collect();
    node.check_clean(&secrets);
}
