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
    use super::*;

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
