//! Settings of apps and tokens through the whole router, without a socket.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use headwater_api::control::LOCAL_KEY_FILE;
use headwater_api::documents::TokenDocument;
use headwater_registry::Tokens as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::access::token_digest;
use crate::http::serve::client::Client;
use crate::http::serve::router::router;
use crate::http::test_node::{LOCAL_CLIENT, TestNode};

/// A node and the key of its operator.
struct Api {
    node: TestNode,
    key: String,
    client: Client,
}

impl Api {
    fn new() -> Self {
        let node = TestNode::new();
        let key = std::fs::read_to_string(node.folder().join(LOCAL_KEY_FILE)).unwrap().trim().to_owned();
        Self { node, key, client: LOCAL_CLIENT }
    }

    /// Sends a request with an `Authorization` header, if there is one.
    async fn send(
        &self,
        authorization: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).extension(self.client);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let response = router(self.node.state.clone()).oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.send(Some(&format!("Bearer {}", self.key)), method, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// Changes the current settings of `live`.
    async fn change(&self, fields: Value) -> (StatusCode, Value) {
        let mut settings = self.get("/rest/v2/apps/live").await;
        settings.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.ask(Method::PUT, "/rest/v2/apps/live", Some(settings)).await
    }

    async fn make(&self, fields: Value) -> (StatusCode, Value) {
        let mut token = json!({ "type": "play", "kind": "one_time", "expires_at_ms": self.in_an_hour_ms() });
        token.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.ask(Method::POST, "/rest/v2/apps/live/tokens", Some(token)).await
    }

    async fn document(&self, token: &Value) -> Option<TokenDocument> {
        self.node.state.registry.token(&token_digest(token.as_str().unwrap())).await.unwrap()
    }

    fn in_an_hour_ms(&self) -> u64 {
        self.node.hub.wall_clock().now_ms() + 3_600_000
    }
}

const JWT_KEY: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn only_the_administrator_reads_and_changes_apps_and_tokens() {
    let api = Api::new();
    let expires_s = api.in_an_hour_ms() / 1_000;
    for (method, path) in [
        (Method::GET, "/rest/v2/apps"),
        (Method::GET, "/rest/v2/apps/live"),
        (Method::PUT, "/rest/v2/apps/live"),
        (Method::DELETE, "/rest/v2/apps/live"),
        (Method::POST, "/rest/v2/apps/live/tokens"),
        (Method::GET, "/rest/v2/apps/live/tokens/0/1"),
        (Method::POST, "/rest/v2/apps/live/tokens/revoke"),
        (Method::GET, &format!("/live/rest/v2/broadcasts/a/token?expireDate={expires_s}&type=play")),
        (Method::GET, &format!("/live/rest/v2/broadcasts/a/jwt-token?expireDate={expires_s}&type=play")),
        (Method::POST, "/live/rest/v2/broadcasts/validate-token"),
        (Method::GET, "/live/rest/v2/broadcasts/a/tokens/list/0/1"),
        (Method::DELETE, "/live/rest/v2/broadcasts/a/tokens"),
    ] {
        for authorization in [None, Some("Bearer wrong"), Some("Bearer ")] {
            let (status, body) = api.send(authorization, method.clone(), path, Some(json!({}))).await;
            assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{method} {path}");
        }
    }
    assert_eq!(api.get("/rest/v2/apps/live/tokens/0/10").await, json!([]));
    assert_eq!(api.get("/rest/v2/apps/live").await["revision"], 0);
}

#[tokio::test]
async fn second_writer_of_the_same_revision_gets_409_and_the_current_settings() {
    let api = Api::new();
    let read = api.get("/rest/v2/apps/live").await;
    let (status, written) = api.change(json!({ "publish": "closed" })).await;
    assert_eq!((status, &written["revision"], &written["publish"]), (StatusCode::OK, &json!(1), &json!("closed")));
    let mut late = read.clone();
    late["play"] = json!("closed");
    let (status, conflict) = api.ask(Method::PUT, "/rest/v2/apps/live", Some(late)).await;
    assert_eq!((status, &conflict["error"]), (StatusCode::CONFLICT, &json!("app_changed")));
    assert_eq!(conflict["current"], written);
    assert_eq!(api.get("/rest/v2/apps").await, json!([api.get("/rest/v2/apps/LiveApp").await, written]));
    // The same request again is no conflict: its answer may have been lost.
    let mut again = read;
    again["publish"] = json!("closed");
    let (status, body) = api.ask(Method::PUT, "/rest/v2/apps/live", Some(again)).await;
    assert_eq!((status, body), (StatusCode::OK, written));
}

#[tokio::test]
async fn app_is_created_with_revision_0_and_removed() {
    let api = Api::new();
    let mut settings = api.get("/rest/v2/apps/live").await;
    settings["name"] = json!("events");
    let (status, created) = api.ask(Method::PUT, "/rest/v2/apps/events", Some(settings.clone())).await;
    assert_eq!((status, &created["revision"]), (StatusCode::OK, &json!(1)));
    let (status, _) = api.ask(Method::DELETE, "/rest/v2/apps/events", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    settings["revision"] = json!(1);
    for (method, body) in [(Method::DELETE, None), (Method::GET, None), (Method::PUT, Some(settings))] {
        let (status, body) = api.ask(method, "/rest/v2/apps/events", body).await;
        assert_eq!((status, &body["error"]), (StatusCode::NOT_FOUND, &json!("app_not_found")));
    }
}

#[tokio::test]
async fn settings_that_admit_nobody_by_mistake_or_exceed_a_limit_are_refused() {
    let api = Api::new();
    let streams = |n: usize| (0..n).map(|n| (format!("{n:0>128}"), json!({ "publish": "closed" }))).collect::<Value>();
    for (fields, code) in [
        (json!({ "publish": "key" }), "invalid_app"),
        (json!({ "publish": "jwt", "jwt_key": "short" }), "invalid_app"),
        (json!({ "streams": streams(1_001) }), "invalid_app"),
        (json!({ "streams": { "a/b": {} } }), "invalid_app"),
        (json!({ "allowed_origins": ["*"] }), "invalid_app"),
        (json!({ "publish": "ajar" }), "bad_request"),
        (json!({ "publish_networks": ["10.0.0.0/33"] }), "bad_request"),
        (json!({ "unknown": 1 }), "bad_request"),
        (json!({ "name": "other" }), "bad_request"),
    ] {
        let (status, body) = api.change(fields.clone()).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!(code)), "{fields:.100}: {body}");
    }
    assert_eq!(api.get("/rest/v2/apps/live").await["revision"], 0);
    let (status, body) = api.change(json!({ "streams": streams(1_000) })).await;
    assert_eq!(status, StatusCode::OK, "{body:.300}");
}

#[tokio::test]
async fn refused_settings_do_not_repeat_a_secret() {
    let api = Api::new();
    let (_, body) = api.change(json!({ "publish": "hunter2", "jwt_key": "hunter2" })).await;
    assert!(!body.to_string().contains("hunter2"), "{body}");
    let (status, body) = api.change(json!({ "jwt_key": "hunter2" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(!body.to_string().contains("hunter2"), "{body}");
}

#[tokio::test]
async fn made_token_is_stored_as_a_digest_and_listed() {
    let api = Api::new();
    let (status, made) = api.make(json!({ "stream": "a" })).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let document = api.document(&made["token"]).await.unwrap();
    assert_eq!((document.app.as_str(), document.stream.as_deref()), ("live", Some("a")));
    let (_, of_all_streams) = api.make(json!({ "type": "publish" })).await;
    assert_eq!(of_all_streams["stream"], Value::Null);
    let listed = api.get("/rest/v2/apps/live/tokens/0/10").await;
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert!(ids.contains(&&made["id"]) && ids.contains(&&of_all_streams["id"]) && ids.len() == 2, "{listed}");
    assert!(!listed.to_string().contains(made["token"].as_str().unwrap()), "{listed}");
}

#[tokio::test]
async fn json_web_token_is_signed_with_the_key_of_the_app() {
    let api = Api::new();
    let (status, body) = api.make(json!({ "kind": "jwt" })).await;
    assert_eq!((status, &body["error"]), (StatusCode::CONFLICT, &json!("no_token_key")));
    assert_eq!(api.change(json!({ "jwt_key": JWT_KEY })).await.0, StatusCode::OK);
    let not_before_ms = api.in_an_hour_ms() - 60_000;
    let (_, made) = api.make(json!({ "kind": "jwt", "stream": "a", "not_before_ms": not_before_ms })).await;
    let token = made["token"].as_str().unwrap();
    let (signed, tag) = token.rsplit_once('.').unwrap();
    let decode = |text| base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    ring::hmac::verify(&key, signed.as_bytes(), &decode(tag)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(signed.split_once('.').unwrap().1)).unwrap();
    let expires_s = made["expires_at_ms"].as_u64().unwrap() / 1_000;
    let jti = claims["jti"].clone();
    assert_eq!(
        claims,
        json!({ "streamId": "a", "type": "play", "app": "live", "nbf": not_before_ms / 1_000, "exp": expires_s, "jti": jti })
    );
    let (_, again) = api.make(json!({ "kind": "jwt", "stream": "a", "not_before_ms": not_before_ms })).await;
    assert_ne!(again["token"], made["token"], "each token can be revoked by itself");
}

#[tokio::test]
async fn token_with_an_impossible_time_or_name_is_refused() {
    let api = Api::new();
    let in_an_hour_ms = api.in_an_hour_ms();
    for fields in [
        json!({ "expires_at_ms": 0 }),
        json!({ "expires_at_ms": in_an_hour_ms - 7_200_000 }),
        json!({ "expires_at_ms": u64::MAX }),
        json!({ "not_before_ms": in_an_hour_ms + 60_000 }),
        json!({ "stream": "a/b" }),
        json!({ "stream": "x".repeat(10_000) }),
        json!({ "type": "watch" }),
        json!({ "kind": "eternal" }),
    ] {
        let (status, body) = api.make(fields.clone()).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{fields:.100}: {body}");
    }
}

#[tokio::test]
async fn token_is_revoked_by_itself_or_by_its_id_but_only_by_its_app() {
    let api = Api::new();
    let revoke = async |app: &str, token: &Value| {
        let path = format!("/rest/v2/apps/{app}/tokens/revoke");
        api.ask(Method::POST, &path, Some(json!({ "token": token }))).await.0
    };
    for by in ["token", "id"] {
        let (_, made) = api.make(json!({})).await;
        assert_eq!(revoke("LiveApp", &made[by]).await, StatusCode::NOT_FOUND);
        assert!(api.document(&made["token"]).await.unwrap().revoked_at_ms.is_none());
        assert_eq!(revoke("live", &made[by]).await, StatusCode::NO_CONTENT);
        assert!(api.document(&made["token"]).await.unwrap().revoked_at_ms.is_some());
    }
    assert_eq!(revoke("live", &json!("unknown")).await, StatusCode::NOT_FOUND);
    assert_eq!(revoke("nope", &json!("unknown")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn json_web_token_of_another_issuer_can_be_revoked_until_its_last_session_has_ended() {
    let api = Api::new();
    let with_expiry = |expires_s: u64| {
        let payload = format!(r#"{{"type":"play","exp":{expires_s}}}"#);
        let payload = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
        json!(format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"))
    };
    let expires_s = api.in_an_hour_ms() / 1_000;
    let (valid, just_expired, expired) = (with_expiry(expires_s), with_expiry(expires_s - 7_200), with_expiry(1_000));
    for (token, expected) in [
        (&valid, StatusCode::NO_CONTENT),
        (&valid, StatusCode::NO_CONTENT),
        (&just_expired, StatusCode::NO_CONTENT),
        (&just_expired, StatusCode::NO_CONTENT),
        (&expired, StatusCode::NOT_FOUND),
    ] {
        let (status, body) =
            api.ask(Method::POST, "/rest/v2/apps/live/tokens/revoke", Some(json!({ "token": token }))).await;
        assert_eq!(status, expected, "{body}");
    }
    let document = api.document(&valid).await.unwrap();
    assert!(document.revoked_at_ms.is_some() && document.expires_at_ms / 1_000 >= expires_s, "{document:?}");
}

#[tokio::test]
async fn tokens_in_the_format_of_ant_media_are_made_validated_listed_and_revoked() {
    let api = Api::new();
    let expires_s = api.in_an_hour_ms() / 1_000;
    let query = format!("expireDate={expires_s}&type=play&roomId=");
    let token = api.get(&format!("/live/rest/v2/broadcasts/a/token?{query}")).await;
    let id = token["tokenId"].clone();
    let expected = json!({ "tokenId": id, "streamId": "a", "expireDate": expires_s, "type": "play", "roomId": null });
    assert_eq!(token, expected);
    assert_eq!(api.change(json!({ "jwt_key": JWT_KEY })).await.0, StatusCode::OK);
    let jwt = api.get(&format!("/live/rest/v2/broadcasts/a/jwt-token?{query}")).await;
    assert_eq!(jwt["tokenId"].as_str().unwrap().split('.').count(), 3);

    let is_valid = async |changes: Value| {
        let mut presented = token.clone();
        presented.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let (status, body) = api.ask(Method::POST, "/live/rest/v2/broadcasts/validate-token", Some(presented)).await;
        assert_eq!((status, &body["errorId"], &body["dataId"]), (StatusCode::OK, &json!(0), &Value::Null));
        body["success"].as_bool().unwrap()
    };
    assert!(is_valid(json!({})).await && is_valid(json!({})).await, "it is not used up");
    assert!(is_valid(json!({ "tokenId": jwt["tokenId"] })).await);
    for wrong in [json!({ "tokenId": "x" }), json!({ "streamId": "b" }), json!({ "type": "publish" })] {
        assert!(!is_valid(wrong.clone()).await, "{wrong}");
    }

    let listed = api.get("/live/rest/v2/broadcasts/a/tokens/list/0/10").await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(id.as_str().unwrap()), "{listed}");
    assert_eq!(api.get("/live/rest/v2/broadcasts/b/tokens/list/0/10").await, json!([]));
    let (status, result) = api.ask(Method::DELETE, "/live/rest/v2/broadcasts/a/tokens", None).await;
    assert_eq!((status, &result["success"]), (StatusCode::OK, &json!(true)), "{result}");
    assert!(!is_valid(json!({})).await && !is_valid(json!({ "tokenId": jwt["tokenId"] })).await);
    for wrong in ["", "expireDate=1&type=play", "expireDate=x&type=play", &format!("expireDate={expires_s}&type=x")] {
        let (status, body) = api.ask(Method::GET, &format!("/live/rest/v2/broadcasts/a/token?{wrong}"), None).await;
        assert_eq!((status, &body["success"]), (StatusCode::BAD_REQUEST, &json!(false)), "{wrong}: {body}");
    }
}

#[tokio::test]
async fn key_of_this_machine_is_worth_nothing_elsewhere() {
    let mut api = Api::new();
    api.client = Client { address: [192, 0, 2, 1].into(), is_local: false, ..LOCAL_CLIENT };
    let (status, body) = api.ask(Method::GET, "/rest/v2/apps", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
}
