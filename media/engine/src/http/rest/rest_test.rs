//! Tests of the whole router without a socket: documented paths and routes must match.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;

use super::openapi;
use super::resources::resources;
use crate::http::serve::router::router;
use crate::http::test_node::TestNode;
use crate::hub::ViewerKind;

impl TestNode {
    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Option<String>, Bytes) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router(self.state.clone()).oneshot(request).await.unwrap();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
        let status = response.status();
        (status, kind, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, kind, body) = self.ask(Method::GET, path).await;
        assert_eq!(kind.as_deref(), Some("application/json"), "{path}: {body:?}");
        (status, serde_json::from_slice(&body).unwrap())
    }
}

fn document() -> OpenApi {
    openapi::document(resources()).1
}

fn paths() -> Vec<String> {
    document().paths.paths.into_keys().collect()
}

#[tokio::test]
async fn served_document_equals_its_copy_in_docs() {
    let (status, kind, served) = TestNode::new().ask(Method::GET, "/rest/v2/openapi.json").await;
    assert_eq!((status, kind.as_deref()), (StatusCode::OK, Some("application/json")));
    assert_eq!(served, openapi::text(&document()));
    let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let fresh = std::env::temp_dir().join(format!("headwater-openapi-{:016x}.json", rand::random::<u64>()));
    if std::fs::read(copy).unwrap_or_default() != served {
        std::fs::write(&fresh, &served).unwrap();
        panic!("docs/openapi.json is out of date: replace it with {}", fresh.display());
    }
}

/// Takes every path under `/rest/v2/` or `/{app}/rest/v2/` from the router's debug output, because
/// the router has no list of its paths. This also finds routes that were added without
/// documentation.
#[tokio::test]
async fn document_contains_exactly_the_rest_routes() {
    let print = format!("{:?}", router(TestNode::new().state.clone()));
    let routed: BTreeSet<String> =
        print.split('"').filter(|s| s.starts_with('/') && s.contains("/rest/v2/")).map(str::to_owned).collect();
    let mut documented: BTreeSet<String> = paths().into_iter().collect();
    documented.insert("/rest/v2/openapi.json".to_owned());
    assert_eq!(routed, documented);
    assert!(routed.len() > 10, "{print}");
}

#[test]
fn every_reference_in_the_document_resolves() {
    let document = serde_json::to_value(document()).unwrap();
    let text = document.to_string();
    let references: BTreeSet<_> = text.split("\"$ref\":\"#").skip(1).filter_map(|s| s.split('"').next()).collect();
    assert!(references.len() > 5, "{text}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "#{reference} does not resolve");
    }
}

#[tokio::test]
async fn documented_path_accepts_only_its_methods() {
    let node = TestNode::new();
    let _a = node.publish("live/1", "rtmp", 0);
    for (path, item) in document().paths.paths {
        let documented = serde_json::to_value(item).unwrap();
        let path = path.replace("{app}", "live").replace("{id}", "1").replace("{offset}", "0").replace("{size}", "1");
        let path = path.replace("{search}", "x");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let (status, _, body) = node.ask(method.clone(), &path).await;
            let is_documented = documented.get(method.as_str().to_ascii_lowercase()).is_some();
            // Requests that change something are refused before routing checks the method.
            let is_refused = method != Method::GET && status == StatusCode::UNAUTHORIZED;
            let is_accepted = status != StatusCode::METHOD_NOT_ALLOWED;
            assert!(is_accepted == is_documented || is_refused, "{method} {path}: {status} {body:?}");
            if method == Method::GET && is_documented {
                // The whole method, not only a change, may be for the administrator.
                let refusal = documented["get"]["responses"]["401"]["description"].as_str().unwrap_or_default();
                let is_for_administrator = refusal.contains("`unauthorized`");
                let expected = if is_for_administrator { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
                assert_eq!(status, expected, "{path}: {body:?}");
            }
        }
    }
}

#[tokio::test]
async fn broadcast_has_the_applicable_fields_of_ant_media() {
    let node = TestNode::new();
    let producer = node.publish("live/demo", "rtmp", 2_000);
    let _viewers =
        [ViewerKind::Webrtc, ViewerKind::Webrtc, ViewerKind::Rtmp].map(|k| producer.stream().count_viewer(k));
    let (status, mut body) = node.get("/live/rest/v2/broadcasts/demo").await;
    assert_eq!(status, StatusCode::OK);
    let started = producer.stream().started_at_ms();
    assert!(body["updateTime"].as_u64().unwrap() >= started, "{body}");
    body.as_object_mut().unwrap().remove("updateTime");
    // The stream is younger than a second, so it has no speed.
    assert_eq!(
        body,
        json!({
            "streamId": "demo", "name": "demo", "status": "broadcasting", "type": "liveStream", "publishType": "RTMP",
            "zombi": true, "date": started, "startTime": started, "duration": 2_000, "receivedBytes": 10, "bitrate": 0,
            "width": 1280, "height": 720, "hlsViewerCount": 0, "webRTCViewerCount": 2, "rtmpViewerCount": 1,
        })
    );
    let (_, statistics) = node.get("/live/rest/v2/broadcasts/demo/broadcast-statistics").await;
    let counts = json!({ "totalRTMPWatchersCount": 1, "totalHLSWatchersCount": 0, "totalWebRTCWatchersCount": 2 });
    assert_eq!(statistics, counts);
    let (_, mut total) = node.get("/live/rest/v2/broadcasts/total-broadcast-statistics").await;
    assert_eq!(total.as_object_mut().unwrap().remove("activeLiveStreamCount"), Some(json!(1)));
    assert_eq!(total, counts);
}

#[tokio::test]
async fn relayed_broadcast_has_no_fields_of_its_publisher() {
    let node = TestNode::new();
    let name = headwater_api::StreamName::parse("live/far").unwrap();
    let _producer = node.hub.relayed().publish(&name, 1_000).unwrap();
    let (_, body) = node.get("/live/rest/v2/broadcasts/far").await;
    for absent in ["publishType", "speed", "width", "height"] {
        assert_eq!(body.get(absent), None, "{body}");
    }
    assert_eq!(body["startTime"], 1_000);
}

#[tokio::test]
async fn list_returns_the_streams_of_its_app_page_by_page() {
    let node = TestNode::new();
    let _producers = ["live/a1", "live/b", "live/a2", "LiveApp/a3"].map(|name| node.publish(name, "rtmp", 0));
    let check = async |path: &str, expected: &[&str]| {
        let (status, body) = node.get(&format!("/live/rest/v2/broadcasts/list/{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        let ids: Vec<_> = body.as_array().unwrap().iter().map(|b| b["streamId"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{path}");
    };
    check("0/10", &["a1", "a2", "b"]).await;
    check("1/1", &["a2"]).await;
    check("9/10", &[]).await;
    check("0/0", &[]).await;
    check("0/10?search=A", &["a1", "a2"]).await;
    check("0/10?sort_by=name&order_by=desc", &["b", "a2", "a1"]).await;
    check("0/10?type_by=liveStream&sort_by=date", &["a1", "a2", "b"]).await;
    check("0/10?type_by=VoD", &[]).await;
    check("0/18446744073709551615", &["a1", "a2", "b"]).await;
    for (path, number) in [("count", 3), ("count/a", 2), ("count/nothing", 0), ("active-live-stream-count", 3)] {
        let (_, body) = node.get(&format!("/live/rest/v2/broadcasts/{path}")).await;
        assert_eq!(body, json!({ "number": number }), "{path}");
    }
}

#[tokio::test]
async fn list_page_has_at_most_250_broadcasts() {
    let node = TestNode::new();
    let _producers: Vec<_> = (0..251).map(|n| node.publish(&format!("live/{n}"), "rtmp", 0)).collect();
    let (_, body) = node.get("/live/rest/v2/broadcasts/list/0/1000").await;
    assert_eq!(body.as_array().unwrap().len(), 250);
}

#[tokio::test]
async fn error_is_json_with_code_message_and_success() {
    let node = TestNode::new();
    let check = async |path: &str, expected: StatusCode, code: &str| {
        let (status, body) = node.get(path).await;
        assert_eq!((status, body["error"].as_str()), (expected, Some(code)), "{path}: {body}");
        assert_eq!(body["success"], json!(false), "{path}");
        assert!(body["message"].as_str().unwrap().ends_with('.'), "{path}: {body}");
    };
    for rest in
        ["version", "broadcasts/a", "broadcasts/count", "broadcasts/list/0/1", "broadcasts/a/broadcast-statistics"]
    {
        check(&format!("/nope/rest/v2/{rest}"), StatusCode::NOT_FOUND, "app_not_found").await;
    }
    check("/live/rest/v2/broadcasts/nobody", StatusCode::NOT_FOUND, "stream_not_found").await;
    check("/live/rest/v2/broadcasts/a%20b", StatusCode::BAD_REQUEST, "bad_request").await;
    let long = "a".repeat(129);
    check(&format!("/live/rest/v2/broadcasts/{long}"), StatusCode::BAD_REQUEST, "bad_request").await;
    for page in
        ["x/1", "-1/1", "0/x", "0/-1", "0/1.5", "99999999999999999999/1", "0/1?sort_by=colour", "0/1?order_by=up"]
    {
        check(&format!("/live/rest/v2/broadcasts/list/{page}"), StatusCode::BAD_REQUEST, "bad_request").await;
    }
}
