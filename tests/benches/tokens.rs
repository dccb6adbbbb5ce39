//! The cost of admitting a client with a JSON web token, next to the bare verification of the same
//! signature with ring, in the same run.
//!
//! ```text
//! cargo bench -p headwater-tests --bench tokens
//! ```
//!
//! A check is the whole decision of `access`: policy, throttle, parsing, signature, claims and
//! revocations, without a call of the registry. Its keys come from the app and from a JWKS URL, as
//! in a node. The program runs itself in a network namespace, where the URL has a private address.
//! Measures CPU time of this thread, so that other work on the machine matters little.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, reason = "a command-line tool")]

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use headwater_api::StreamName;
use headwater_api::documents::{AppDocument, Grant, Policy};
use headwater_api::secret::Secret;
use headwater_engine::access::{Access, AccessRequest, Credentials, PolicyReader};
use headwater_engine::runtime::node_secret::NodeSecret;
use headwater_engine::runtime::wall_clock::WallClock;
use headwater_registry::{Apps as _, Embedded, Store};
use headwater_tests::namespace;
use headwater_tests::temp::TempDir;
use nix::time::{ClockId, clock_gettime};
use ring::{hmac, signature};
use serde_json::Value;
use test_tokens::{JWK_SET, KEY, PYJWT_ES256, PYJWT_HS256, PYJWT_RS256};

#[path = "../../media/engine/src/access/test_tokens.rs"]
#[expect(dead_code, reason = "the unit tests also make tokens")]
mod test_tokens;

/// Limit of a check, in microseconds.
const MAX_CHECK_US: f64 = 60.0;
/// Each measurement repeats a check for at least this duration.
const MIN_DURATION: Duration = Duration::from_millis(100);
/// The fastest of this number of measurements counts.
const MEASUREMENTS: usize = 7;
/// Address of the issuer in the namespace.
const ISSUER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const INSIDE: &str = "--inside";

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock of this thread").into()
}

/// CPU time of one call, in microseconds.
fn measure(mut call: impl FnMut()) -> f64 {
    let once = || {
        let (start, mut calls) = (cpu_time(), 0_u32);
        loop {
            call();
            calls += 1;
            let took = cpu_time() - start;
            if took >= MIN_DURATION {
                return took.as_secs_f64() * 1e6 / f64::from(calls);
            }
        }
    };
    std::iter::repeat_with(once).take(MEASUREMENTS).fold(f64::INFINITY, f64::min)
}

/// Answers every request with the JWK set, on a thread of its own.
fn serve_keys() -> String {
    let listener = TcpListener::bind((ISSUER, 0)).expect("an address of the namespace");
    let url = format!("http://{}/keys", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            // The request fits into one read.
            let _ = client.read(&mut [0; 4_096]);
            let length = JWK_SET.len();
            let _ = write!(client, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{JWK_SET}");
        }
    });
    url
}

/// Decides by one app, which accepts tokens of all three algorithms.
async fn open_access(folder: &TempDir) -> Access {
    let registry = Embedded::open(folder.path()).expect("a registry");
    let app = AppDocument {
        play: Policy::Jwt,
        jwt_key: Some(Secret::new(KEY)),
        jwks_url: Some(serve_keys()),
        jwks_private: true,
        ..AppDocument::open("bench")
    };
    registry.put_app(&app).await.expect("an app");
    let store = Store::Embedded(registry);
    let access = Access::new(Some(store.clone()), &NodeSecret::new(b"the secret of this bench"), WallClock::default());
    access.read_policies(&mut PolicyReader::new(store, folder.path().to_owned())).await.expect("policies");
    access
}

/// What is signed, and the signature.
fn split(token: &str) -> (&str, Vec<u8>) {
    let (message, tag) = token.rsplit_once('.').expect("a token");
    (message, decode(tag))
}

fn decode(text: &str) -> Vec<u8> {
    BASE64.decode(text).expect("base64")
}

/// The bare verification of a token's signature.
fn floor(algorithm: &str, token: &str) -> f64 {
    let set: Value = serde_json::from_str(JWK_SET).expect("a JWK set");
    let field = |key: usize, name: &str| decode(set["keys"][key][name].as_str().expect("a field of the key"));
    let (message, tag) = split(token);
    let message = message.as_bytes();
    match algorithm {
        "HS256" => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
            measure(|| hmac::verify(&key, black_box(message), &tag).expect("a valid tag"))
        }
        "RS256" => {
            let key = signature::RsaPublicKeyComponents { n: field(0, "n"), e: field(0, "e") };
            let algorithm = &signature::RSA_PKCS1_2048_8192_SHA256;
            measure(|| key.verify(algorithm, black_box(message), &tag).expect("a valid signature"))
        }
        _ => {
            let point = [vec![4], field(1, "x"), field(1, "y")].concat();
            let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
            measure(|| key.verify(black_box(message), &tag).expect("a valid signature"))
        }
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == INSIDE) {
        let status = namespace::command(&std::env::current_exe().expect("this program"), ISSUER).arg(INSIDE).status();
        std::process::exit(status.ok().and_then(|status| status.code()).unwrap_or(1));
    }
    let folder = TempDir::new().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let access = runtime.block_on(open_access(&folder));
    let stream = StreamName::parse("bench/a").expect("a name");
    println!(
        "| token | check | bare verification | difference | at most | kept |\n| --- | --- | --- | --- | --- | --- |"
    );
    for (algorithm, token) in [("HS256", PYJWT_HS256), ("RS256", PYJWT_RS256), ("ES256", PYJWT_ES256)] {
        let query = format!("token={token}");
        let credentials = Credentials::from_query(Some(&query));
        let client = IpAddr::from([192, 0, 2, 1]);
        let request = AccessRequest { action: Grant::Play, stream: &stream, credentials, client };
        let check = || drop(runtime.block_on(access.authorize(black_box(&request))).expect("an admitted client"));
        // Fetches the keys.
        check();
        let (check, floor) = (measure(check), floor(algorithm, token));
        let kept = if check <= MAX_CHECK_US { "yes" } else { "NO" };
        let difference = check - floor;
        println!("| {algorithm} | {check:.1} us | {floor:.1} us | {difference:.1} us | {MAX_CHECK_US} us | {kept} |");
    }
}
