//! Reads and writes the session cookie (RFC 6265, RFC 6265bis §4.1.3). Its value is opaque here.
//!
//! Over an encrypted connection its name has the prefix `__Host-`: a browser then accepts it only
//! from this host and over HTTPS, so that nobody can plant one over plain HTTP. Over an unencrypted
//! connection there is a cookie only between programs of the same machine.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use crate::http::serve::client::Client;

/// Name of the session cookie over HTTPS.
const SECURE_NAME: &str = "__Host-headwater_session";
/// Name of the session cookie over plain HTTP on the same machine.
const LOCAL_NAME: &str = "headwater_session";

/// True if this client may have a session: nobody on the network can read its cookie or password.
pub(super) fn may_have_session(client: Client) -> bool {
    cookie_name(client).is_some()
}

fn cookie_name(client: Client) -> Option<&'static str> {
    match client {
        _ if client.is_encrypted() => Some(SECURE_NAME),
        Client { is_local: true, .. } => Some(LOCAL_NAME),
        _ => None,
    }
}

/// Value of the session cookie of a request; `None` also if this client may have none.
pub(super) fn session_cookie(headers: &HeaderMap, client: Client) -> Option<&str> {
    let name = cookie_name(client)?;
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Sets the session cookie for `seconds`; 0 removes it. Does nothing if this client may have none.
pub(super) fn set_session_cookie(response: &mut Response, value: &str, seconds: u64, client: Client) {
    let Some(name) = cookie_name(client) else { return };
    let secure = if client.is_encrypted() { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}
