//! The address of this node's pages over HTTPS, as seen by a client: the host that it addresses,
//! and the port of the HTTPS listener.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

use crate::http::state::AppState;

/// `https://HOST:5443/` for the `Host` of a request; `None` if HTTPS is off, or the request names
/// no host.
pub(super) fn https_url(state: &AppState, headers: &HeaderMap) -> Option<String> {
    format_url(headers, state.endpoints.https?.port())
}

fn format_url(headers: &HeaderMap, port: u16) -> Option<String> {
    let authority: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
    let host = authority.host();
    if host.is_empty() {
        return None;
    }
    Some(if port == HTTPS_PORT { format!("https://{host}/") } else { format!("https://{host}:{port}/") })
}

/// The default of the scheme (RFC 9110 §4.2.2).
const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn https_url_has_the_host_of_the_request_and_the_port_of_the_listener() {
        let check = |host: Option<&'static str>, port, expected: Option<&str>| {
            let headers = host.map(|host| (header::HOST, HeaderValue::from_static(host))).into_iter().collect();
            assert_eq!(format_url(&headers, port).as_deref(), expected, "{host:?}");
        };
        check(Some("media.example:5080"), 5443, Some("https://media.example:5443/"));
        check(Some("media.example"), 443, Some("https://media.example/"));
        check(Some("[2001:db8::1]:5080"), 5443, Some("https://[2001:db8::1]:5443/"));
        check(Some("user@media.example"), 5443, Some("https://media.example:5443/"));
        for invalid in [None, Some(""), Some("a b"), Some("a/b")] {
            check(invalid, 5443, None);
        }
    }
}
