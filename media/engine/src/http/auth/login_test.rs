//! Tests of who may log in over which connection, from the client's side.

use headwater_api::documents::{ADMINISTRATOR, Rights, UserDocument};
use headwater_program::password;
use headwater_registry::Accounts as _;
use serde_json::Value;

use super::*;
use crate::http::serve::client::Encryption;
use crate::http::test_node::{Peer, TestNode};
use crate::runtime::trusted_proxies::TrustedProxies;

const BODY: &str = "{\"password\":\"right\"}";

/// Status, header fields and JSON of a response.
struct Answer {
    status: u16,
    head: String,
    json: Value,
}

impl Answer {
    /// Name and value of the cookie that it sets, and its attributes.
    fn cookie(&self) -> Option<(&str, &str)> {
        self.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split_once("; "))
    }
}

async fn node_with_administrator() -> TestNode {
    let node = TestNode::new();
    let administrator = UserDocument {
        name: ADMINISTRATOR.to_owned(),
        password_hash: password::hash(&Secret::new("right")).unwrap(),
        rights: Rights::Administer,
        created_at_ms: 0,
        ended_sessions: Vec::new(),
    };
    node.registry.create_user(&administrator).await.unwrap();
    node
}

async fn ask(node: &TestNode, peer: &Peer, method: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {PATH} HTTP/1.1\r\nhost: media.example:5080\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n{headers}"
    );
    let text = node.exchange(peer, &format!("{head}\r\n{body}")).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), json: serde_json::from_str(body).unwrap_or_default() }
}

fn behind_proxy(peer: Peer) -> Peer {
    Peer { proxies: TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]), ..peer }
}

const FORWARDED: &str = "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\n";

#[tokio::test]
async fn login_over_plain_http_works_only_from_the_same_machine_or_behind_an_https_proxy() {
    let node = node_with_administrator().await;
    let plain = |address| Peer::new(address, Encryption::None);
    for (peer, headers) in [
        (plain("192.0.2.7"), ""),
        (plain("10.0.0.5"), ""),
        (plain("192.0.2.7"), FORWARDED),
        (plain("127.0.0.1"), FORWARDED),
        (plain("127.0.0.1"), "x-forwarded-for: 127.0.0.1\r\n"),
        (plain("127.0.0.1"), "via: 1.1 proxy\r\n"),
        (behind_proxy(plain("10.0.0.5")), ""),
        (behind_proxy(plain("10.0.0.5")), "x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: http\r\n"),
        (behind_proxy(plain("192.0.2.7")), FORWARDED),
        // A load balancer whose clients use plain HTTP, although it connects with TLS.
        (behind_proxy(Peer::new("10.0.0.5", Encryption::SelfSigned)), "x-forwarded-proto: http\r\n"),
    ] {
        let answer = ask(&node, &peer, "POST", headers, BODY).await;
        assert_eq!((answer.status, answer.json["error"].as_str()), (403, Some("https_required")), "{peer:?} {headers}");
        let message = answer.json["message"].as_str().unwrap();
        assert!(message.contains("https://media.example:5443/"), "{message}");
        assert_eq!(answer.cookie(), None, "{peer:?}");
        let session = ask(&node, &peer, "GET", headers, "").await.json;
        assert_eq!(session["may_log_in"], false, "{session}");
        assert_eq!(session["https_url"], "https://media.example:5443/");
        let logout = ask(&node, &peer, "DELETE", headers, "").await;
        assert_eq!((logout.status, logout.cookie()), (204, None));
    }
    for (peer, headers, name) in [
        (plain("127.0.0.1"), "", "headwater_session"),
        (plain("::1"), "", "headwater_session"),
        (behind_proxy(plain("10.0.0.5")), FORWARDED, "__Host-headwater_session"),
        (Peer::new("192.0.2.7", Encryption::SelfSigned), "", "__Host-headwater_session"),
        (Peer::new("192.0.2.7", Encryption::Certified), "", "__Host-headwater_session"),
        (Peer::new("127.0.0.1", Encryption::SelfSigned), FORWARDED, "__Host-headwater_session"),
    ] {
        let answer = ask(&node, &peer, "POST", headers, BODY).await;
        assert_eq!((answer.status, &answer.json["may_log_in"]), (200, &Value::Bool(true)), "{peer:?} {headers}");
        let (pair, attributes) = answer.cookie().unwrap();
        assert_eq!(pair.split_once('=').unwrap().0, name, "{peer:?}");
        // What a browser requires for the prefix (RFC 6265bis §4.1.3.2).
        let secure = name.starts_with("__Host-");
        assert!(attributes.contains("Path=/;") && !attributes.contains("Domain"), "{attributes}");
        assert_eq!(attributes.split("; ").any(|attribute| attribute == "Secure"), secure, "{attributes}");
        assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Strict"), "{attributes}");
        let session = ask(&node, &peer, "GET", &format!("{headers}cookie: {pair}\r\n"), "").await.json;
        assert_eq!((&session["administrator"], session.get("https_url")), (&Value::Bool(true), None), "{session}");
    }
}

/// Somebody on the network could have read it, or planted it.
#[tokio::test]
async fn session_cookie_is_ignored_over_plain_http_from_elsewhere_and_by_its_other_name() {
    let node = node_with_administrator().await;
    let (local, tls) = (Peer::local(), Peer::new("192.0.2.7", Encryption::SelfSigned));
    let login = ask(&node, &local, "POST", "", BODY).await;
    let value = login.cookie().unwrap().0.split_once('=').unwrap().1.to_owned();
    let is_administrator = async |peer: &Peer, name: &str| {
        ask(&node, peer, "GET", &format!("cookie: {name}={value}\r\n"), "").await.json["administrator"] == true
    };
    assert!(is_administrator(&local, "headwater_session").await);
    assert!(is_administrator(&tls, "__Host-headwater_session").await);
    assert!(!is_administrator(&local, "__Host-headwater_session").await);
    assert!(!is_administrator(&tls, "headwater_session").await);
    let elsewhere = Peer::new("192.0.2.7", Encryption::None);
    for name in ["headwater_session", "__Host-headwater_session"] {
        assert!(!is_administrator(&elsewhere, name).await, "{name}");
    }
}

#[tokio::test]
async fn password_of_a_program_is_accepted_over_plain_http() {
    let node = node_with_administrator().await;
    let elsewhere = Peer::new("192.0.2.7", Encryption::None);
    let basic = "authorization: Basic YWRtaW46cmlnaHQ=\r\n";
    assert_eq!(ask(&node, &elsewhere, "GET", basic, "").await.json["administrator"], true);
}
