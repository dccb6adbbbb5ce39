//! Checks the `Host` of a request (RFC 9112 §3.2): without this, two servers in a row may disagree
//! about whom a request is for.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, Version};

use crate::http::error::{Code, Problem};

/// Checks that a request has exactly one valid `Host`, which an absolute form repeats. A request of
/// HTTP/1.0 may have none.
///
/// # Errors
/// Status 400.
pub(crate) fn check_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |reason| Err(Problem::fixed(Code::BadRequest, reason));
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => refuse("The request has no Host."),
        (Some(_), Some(_)) => refuse("The request has more than one Host."),
        (Some(host), None) => match host.to_str() {
            Ok(host) if !is_valid(host) => refuse("The Host of the request is invalid."),
            Ok(host) if uri.authority().is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host)) => {
                refuse("The Host of the request differs from its target.")
            }
            Ok(_) => Ok(()),
            Err(_) => refuse("The Host of the request is invalid."),
        },
    }
}

/// True for a host with an optional port. Empty if the target has no host.
fn is_valid(host: &str) -> bool {
    host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn request_has_one_host_that_an_absolute_form_repeats() {
        let check = |version, target: &str, hosts: &[&str], expected: bool| {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(()).unwrap();
            let result = check_host(version, request.uri(), request.headers());
            assert_eq!(result.is_ok(), expected, "{version:?} {target} {hosts:?}: {result:?}");
            assert!(result.err().is_none_or(|problem| problem.code() == Code::BadRequest));
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        check(new, "/", &["a"], true);
        check(new, "/", &["[2001:db8::1]:5080"], true);
        check(new, "/", &["a:5080"], true);
        check(new, "/", &[""], true);
        check(new, "/", &[], false);
        check(old, "/", &[], true);
        check(old, "/", &["a"], true);
        for version in [old, new] {
            check(version, "/", &["a", "a"], false);
            check(version, "/", &["a", "b"], false);
            for invalid in ["a b", "user@a", "a/b", "a,b c"] {
                check(version, "/", &[invalid], false);
            }
            check(version, "http://a:5080/x", &["A:5080"], true);
            check(version, "http://a:5080/x", &["a"], false);
            check(version, "http://a/x", &["b"], false);
        }
        check(old, "http://a/x", &[], true);
        check(new, "http://a/x", &[], false);
        check(new, "*", &["a"], true);
    }
}
