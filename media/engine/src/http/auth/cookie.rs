//! Reads and writes the session cookie (RFC 6265). Its value is opaque here.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

/// Name of the session cookie.
const NAME: &str = "headwater_session";

/// Value of the session cookie of a request.
pub(super) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
}

/// Sets the session cookie for `seconds`; 0 removes it. With `encrypted`, the browser returns it
/// only over HTTPS.
pub(super) fn set_session_cookie(response: &mut Response, value: &str, seconds: u64, encrypted: bool) {
    let secure = if encrypted { "; Secure" } else { "" };
    let text = format!("{NAME}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}
