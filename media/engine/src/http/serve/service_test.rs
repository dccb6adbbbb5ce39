//! Tests of what the public web server promises for every path, from the client's side: header
//! fields for pages of other origins, OPTIONS, `Host` and line ends. Each request is sent twice
//! where two paths may answer it.

use headwater_api::documents::AppDocument;

use super::*;
use crate::http::test_node::{Peer, TestNode};
use crate::runtime::trusted_proxies::TrustedProxies;

/// Status and header fields of a response, and its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends bytes from the same machine, and reads until the server closes the connection.
async fn exchange(node: &TestNode, request: &str) -> Answer {
    exchange_from(node, &Peer::local(), request).await
}

async fn exchange_from(node: &TestNode, peer: &Peer, request: &str) -> Answer {
    let text = node.exchange(peer, request).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:?}: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The answers of the fast path, where it supports the request, and of hyper.
async fn ask(node: &TestNode, method: &str, path: &str, headers: &str) -> [Answer; 2] {
    let request =
        |more: &str| format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{more}\r\n");
    [exchange(node, &request("")).await, exchange(node, &request("content-length: 0\r\n")).await]
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_a_media_path_may_be_read_by_pages_of_other_origins() {
    let node = TestNode::new();
    let _publisher = node.publish("live/a", "rtmp", 0);
    let headers = "origin: https://player.example\r\nauthorization: Bearer x\r\nrange: bytes=0-\r\n\
        cmcd-session: sid=\"a\"\r\n";
    for (method, path, status) in [
        // The stream has no segment yet.
        ("GET", "/live/streams/a.m3u8", 503),
        ("HEAD", "/live/streams/a.m3u8", 503),
        ("GET", "/live/streams/%61.m3u8", 503),
        ("GET", "/live/streams/missing.m3u8", 404),
        ("GET", "/live/streams/missing/playlist.m3u8", 404),
        ("GET", "/live/streams/a/1/1.m4s", 404),
        ("GET", "/live/streams/a/x/y/z", 404),
        ("GET", "/none/streams/a.m3u8", 404),
        ("POST", "/live/streams/a.m3u8", 405),
        ("GET", "/live/whep/a/0123", 404),
        ("POST", "/live/whep/a", 415),
        ("PATCH", "/live/whep/a/0123", 405),
        ("DELETE", "/live/whep/a/0123", 404),
        ("PUT", "/live/whep/a", 405),
    ] {
        for answer in ask(&node, method, path, headers).await {
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.head);
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {path}: {}", answer.head);
            let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
            assert!(exposed.contains("Location") && exposed.contains("Link"), "{method} {path}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn options_allow_what_players_of_other_origins_send() {
    let node = TestNode::new();
    let preflight = "origin: https://player.example\r\naccess-control-request-method: GET\r\n\
        access-control-request-headers: authorization, cmcd-object, range, if-match\r\n";
    for (path, methods) in [
        ("/live/streams/a.m3u8", ["GET", "HEAD"].as_slice()),
        ("/live/streams/a/playlist.m3u8", &["GET"]),
        ("/live/streams/a/1/2.m4s", &["GET"]),
        ("/live/whep/a", &["POST"]),
        ("/live/whep/a/0123", &["PATCH", "DELETE", "GET"]),
        ("/rest/v2/streams", &["GET"]),
        ("/live/rest/v2/broadcasts/list/0/10", &["GET"]),
    ] {
        for answer in ask(&node, "OPTIONS", path, preflight).await {
            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}: {}", answer.head);
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
            let list = |name| answer.header(name).unwrap_or_default().split(", ").collect::<Vec<_>>();
            let (allowed_methods, allowed_headers) =
                (list("access-control-allow-methods"), list("access-control-allow-headers"));
            assert!(methods.iter().all(|method| allowed_methods.contains(method)), "{path}: {}", answer.head);
            for name in ["Authorization", "Range", "If-Match", "Content-Type", "CMCD-Object", "CMCD-Session"] {
                assert!(allowed_headers.contains(&name), "{path}: {name}: {}", answer.head);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn app_with_allowed_origins_answers_these_with_credentials_and_no_others() {
    let node = TestNode::new();
    let allowed_origins = vec!["https://a.example".to_owned()];
    let app = AppDocument { allowed_origins, ..AppDocument::open("live") };
    node.state.access.set_policies(vec![app, AppDocument::open("LiveApp")], &[]);
    for (method, path) in [
        ("GET", "/live/streams/missing.m3u8"),
        ("GET", "/%6cive/streams/missing.m3u8"),
        ("OPTIONS", "/live/streams/a/1/2.m4s"),
        ("POST", "/live/whep/a"),
        ("OPTIONS", "/live/whep/a"),
    ] {
        for answer in ask(&node, method, path, "origin: https://a.example\r\n").await {
            assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"), "{}", answer.head);
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{}", answer.head);
            assert_eq!(answer.header("vary"), Some("origin"), "{}", answer.head);
        }
        for headers in ["origin: https://b.example\r\n", "origin: null\r\n", "origin: https://a.example.b\r\n", ""] {
            for answer in ask(&node, method, path, headers).await {
                assert!(!answer.head.contains("access-control-allow-origin"), "{headers}: {}", answer.head);
                assert_eq!(answer.header("vary"), Some("origin"), "{}", answer.head);
            }
        }
    }
    for answer in ask(&node, "GET", "/LiveApp/streams/missing.m3u8", "origin: https://b.example\r\n").await {
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (Some("*"), None));
    }
}

/// HAProxy checks its servers with `OPTIONS / HTTP/1.0` by default.
#[tokio::test]
async fn options_of_a_health_check_are_answered_without_a_content() {
    let node = TestNode::new();
    for request in ["OPTIONS / HTTP/1.0\r\n\r\n", "OPTIONS / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"] {
        let answer = exchange(&node, request).await;
        assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, OPTIONS")), "{}", answer.head);
        assert_eq!(answer.header("access-control-allow-origin"), None, "a page is not for other origins");
    }
}

#[tokio::test]
async fn request_with_a_doubtful_host_or_line_end_is_refused() {
    let node = TestNode::new();
    for path in ["/live/streams/missing.m3u8", "/rest/v2/version", "/"] {
        for head in [
            format!("GET {path} HTTP/1.1\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n"),
            format!("GET http://y{path} HTTP/1.1\r\nhost: x\r\n\r\n"),
            format!("GET {path} HTTP/1.1\nhost: x\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: x\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: x\r\n\n"),
        ] {
            // Without `connection: close`, a request that is not refused is answered too.
            let last = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            assert_eq!(exchange(&node, &format!("{head}{last}")).await.status, 400, "{head:?}");
        }
        let status = if path.contains("missing") { 404 } else { 200 };
        for head in [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET http://x{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        ] {
            assert_eq!(exchange(&node, &head).await.status, status, "{head:?}");
        }
    }
}

#[tokio::test]
async fn browsers_must_take_json_for_nothing_else() {
    let node = TestNode::new();
    for path in [
        "/rest/v2/version",
        "/rest/v2/streams",
        "/rest/v2/openapi.json",
        "/rest/v2/session",
        "/live/rest/v2/broadcasts/list/0/10",
        "/live/rest/v2/broadcasts/missing",
        "/live/streams/missing.m3u8",
        "/nothing",
    ] {
        for answer in ask(&node, "GET", path, "").await {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        }
    }
}

/// A browser that has seen the header field uses no plain HTTP any more, and lets no user accept a
/// certificate that it does not trust (RFC 6797 §8.4, §12.1).
#[tokio::test]
async fn hsts_is_sent_only_where_the_browser_has_a_trusted_certificate() {
    let node = TestNode::new();
    let trusts_proxy = |peer| Peer { proxies: TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]), ..peer };
    let check = async |peer: Peer, headers: &str, expected: bool| {
        for path in ["/", "/rest/v2/version", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
            let answer = exchange_from(&node, &peer, &request).await;
            let hsts = expected.then_some("max-age=31536000");
            assert_eq!(answer.header("strict-transport-security"), hsts, "{peer:?} {headers:?}: {}", answer.head);
        }
    };
    let [none, self_signed, certified] =
        [Encryption::None, Encryption::SelfSigned, Encryption::Certified].map(|e| Peer::new("10.0.0.5", e));
    let forwarded = "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\n";
    check(none.clone(), "", false).await;
    check(none.clone(), forwarded, false).await;
    check(self_signed.clone(), forwarded, false).await;
    check(certified.clone(), "", true).await;
    check(trusts_proxy(none.clone()), forwarded, true).await;
    check(trusts_proxy(self_signed.clone()), forwarded, true).await;
    check(trusts_proxy(self_signed), "", false).await;
    check(trusts_proxy(certified), "x-forwarded-proto: http\r\n", false).await;
    check(trusts_proxy(none), "x-forwarded-proto: http\r\n", false).await;
}
