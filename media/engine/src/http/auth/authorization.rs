//! The middleware of REST: only the administrator may change something, and only from a page of
//! this server or from a program.

use axum::extract::{FromRequestParts as _, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::login;
use crate::http::error::{Code, Problem};
use crate::http::serve::client::Client;
use crate::http::state::AppState;

/// Middleware of all REST routes: refuses requests that change something unless the caller is the
/// administrator.
pub(in crate::http) async fn require_administrator(
    Extract(state): Extract<AppState>,
    request: Request,
    next: Next,
) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match authorize(&state, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => problem.into_response(),
    }
}

async fn authorize(state: &AppState, parts: &mut Parts) -> Result<(), Problem> {
    let is_encrypted = Client::of(&parts.extensions).is_encrypted();
    if parts.uri.path() == login::PATH {
        return check_same_origin(&parts.headers, is_encrypted, false);
    }
    let caller = Caller::from_request_parts(parts, state).await?;
    if caller.name().is_none() {
        return Err(Problem::fixed(Code::Unauthorized, "Only the administrator may do this: log in first."));
    }
    check_same_origin(&parts.headers, is_encrypted, caller.by_cookie)?;
    if !caller.is_administrator() {
        return Err(Problem::fixed(Code::Forbidden, "Only an administrator may do this."));
    }
    Ok(())
}

/// Refuses requests of pages of another origin (RFC 6454 §4: scheme, host and port).
/// `is_encrypted` is that of the browser's connection. With `require_origin`, also refuses requests
/// without an `Origin` header.
fn check_same_origin(headers: &HeaderMap, is_encrypted: bool, require_origin: bool) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let own = match text(header::ORIGIN) {
        None => !require_origin,
        Some(origin) => {
            let scheme = if is_encrypted { "https" } else { "http" };
            origin.split_once("://").is_some_and(|(origin_scheme, authority)| {
                origin_scheme.eq_ignore_ascii_case(scheme)
                    && text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority))
            })
        }
    };
    if own {
        Ok(())
    } else {
        Err(Problem::fixed(
            Code::CrossOrigin,
            "This request does not come from a page of this server. Behind an HTTPS proxy, [http] trusted_proxies \
             must name the proxy.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, StatusCode};
    use headwater_api::documents::{Rights, UserDocument};
    use headwater_api::secret::Secret;
    use headwater_registry::Accounts as _;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::serve::router::router;
    use crate::http::test_node::{LOCAL_CLIENT, TestNode};

    const ADMINISTRATOR: (&str, &str) = ("authorization", "Basic YWRtaW46cmlnaHQ=");
    const READER: (&str, &str) = ("authorization", "Basic cmVhZGVyOnJpZ2h0");
    const OWN_PAGE: (&str, &str) = ("origin", "http://a");
    const OTHER_PAGE: (&str, &str) = ("origin", "http://evil.example");

    /// A node with the users `admin` and `reader`, whose password is "right".
    async fn node_with_users() -> TestNode {
        let node = TestNode::new();
        let password_hash = headwater_program::password::hash(&Secret::new("right")).unwrap();
        for (name, rights) in [("admin", Rights::Administer), ("reader", Rights::Read)] {
            let user = UserDocument {
                name: name.to_owned(),
                password_hash: password_hash.clone(),
                rights,
                created_at_ms: 0,
                ended_sessions: Vec::new(),
            };
            node.registry.create_user(&user).await.unwrap();
        }
        node
    }

    async fn respond(
        node: &TestNode,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path).header("host", "a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = request.extension(LOCAL_CLIENT);
        router(node.state.clone()).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    /// Logs in; returns the status and the cookie.
    async fn log_in(node: &TestNode, origin: (&str, &str)) -> (StatusCode, Option<String>) {
        let headers = [("content-type", "application/json"), origin];
        let response = respond(node, Method::POST, login::PATH, &headers, r#"{"password": "right"}"#).await;
        let cookie = response.headers().get("set-cookie").and_then(|value| value.to_str().ok());
        (response.status(), cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned))
    }

    /// The error code of a request to remove a node that does not exist.
    async fn remove_node(node: &TestNode, headers: &[(&str, &str)]) -> String {
        let response = respond(node, Method::DELETE, "/rest/v2/cluster/node/x", headers, "").await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn only_an_administrator_on_a_page_of_this_server_may_change_something() {
        let node = node_with_users().await;
        let cases: [(&[(&str, &str)], Code); 5] = [
            (&[ADMINISTRATOR], Code::NodeNotFound),
            (&[ADMINISTRATOR, OWN_PAGE], Code::NodeNotFound),
            (&[ADMINISTRATOR, OTHER_PAGE], Code::CrossOrigin),
            (&[READER], Code::Forbidden),
            (&[], Code::Unauthorized),
        ];
        for (headers, error) in cases {
            assert_eq!(remove_node(&node, headers).await, error.as_str(), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn browser_session_begins_and_acts_only_on_pages_of_this_server() {
        let node = node_with_users().await;
        assert_eq!(log_in(&node, OTHER_PAGE).await, (StatusCode::FORBIDDEN, None));
        let (status, cookie) = log_in(&node, OWN_PAGE).await;
        assert_eq!(status, StatusCode::OK);
        let cookie = cookie.unwrap();
        let cookie = ("cookie", cookie.as_str());
        let cases: [(&[(&str, &str)], Code); 3] = [
            (&[cookie, OWN_PAGE], Code::NodeNotFound),
            (&[cookie, OTHER_PAGE], Code::CrossOrigin),
            (&[cookie], Code::CrossOrigin),
        ];
        for (headers, error) in cases {
            assert_eq!(remove_node(&node, headers).await, error.as_str(), "{headers:?}");
        }
    }

    #[test]
    fn request_of_another_origin_is_refused() {
        let check_scheme = |headers: &[(&str, &str)], is_encrypted, require_origin: bool, expected: bool| {
            let mut request = Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(()).unwrap();
            let passed = check_same_origin(request.headers(), is_encrypted, require_origin).is_ok();
            assert_eq!(passed, expected, "{headers:?} {is_encrypted}");
        };
        let check = |headers: &[(&str, &str)], require_origin: bool, expected: bool| {
            check_scheme(headers, false, require_origin, expected);
        };
        for is_encrypted in [false, true] {
            check_scheme(&[("host", "a"), ("origin", "http://a")], is_encrypted, true, !is_encrypted);
            check_scheme(&[("host", "a"), ("origin", "https://a")], is_encrypted, true, is_encrypted);
        }
        check(&[("host", "a"), ("origin", "ftp://a")], true, false);
        check(&[("host", "a:5080"), ("origin", "http://A:5080")], true, true);
        check(&[("host", "a:5080"), ("origin", "http://a")], true, false);
        check(&[("host", "a"), ("origin", "https://evil.example")], false, false);
        check(&[("host", "a"), ("origin", "null")], false, false);
        check(&[("origin", "http://a")], false, false);
        check(&[("host", "a")], false, true);
        check(&[("host", "a")], true, false);
    }
}
