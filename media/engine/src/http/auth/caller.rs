//! Identifies the caller of a request, by HTTP Basic, by the key of a command on this machine, or
//! by the session cookie. Does not decide what the caller may do.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_api::control::Endpoints;
use headwater_api::documents::{Rights, UserDocument};
use headwater_api::secret::Secret;

use super::accounts::LoginError;
use super::cookie::session_cookie;
use crate::http::error::{Code, Problem};
use crate::http::serve::client::Client;
use crate::http::state::AppState;

/// The caller of a request; usually without a login.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Caller {
    user: Option<Arc<UserDocument>>,
    /// End of the session, in Unix seconds; `None` without a session.
    pub(super) expires_s: Option<u64>,
    /// True if a cookie identifies the caller. A browser also sends it with requests of other
    /// pages.
    pub(super) by_cookie: bool,
}

impl Caller {
    /// True if the caller is an administrator.
    pub(in crate::http) fn is_administrator(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.rights == Rights::Administer)
    }

    /// The user name, if the caller is logged in.
    pub(super) fn name(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }
}

/// True if the client is a program of this machine. It may have connected to the one address that
/// the server listens at.
fn is_on_this_machine(client: Client, endpoints: &Endpoints) -> bool {
    let own = [endpoints.http, endpoints.https].into_iter().flatten();
    client.is_local || own.into_iter().any(|address| address.ip().to_canonical() == client.address)
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    /// Refuses a wrong password. An expired session counts as no login.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        if let Some((name, password)) = basic(&parts.headers) {
            let from = Client::of(&parts.extensions).address;
            let user = state.accounts.by_password(from, &name, password).await?;
            return Ok(Self { user: Some(user), expires_s: None, by_cookie: false });
        }
        // Commands run on this machine: elsewhere, a key that somebody has copied is worth nothing.
        let is_here = is_on_this_machine(Client::of(&parts.extensions), &state.endpoints);
        let local_key = bearer(&parts.headers).filter(|_| is_here);
        if let Some(user) = local_key.and_then(|key| state.accounts.by_local_key(key)) {
            return Ok(Self { user: Some(user), expires_s: None, by_cookie: false });
        }
        let Some(cookie) = session_cookie(&parts.headers, Client::of(&parts.extensions)) else {
            return Ok(Self::default());
        };
        let session = state.accounts.by_session(cookie, now_s()).await;
        Ok(session.map_or_else(Self::default, |(user, expires_s)| Self {
            user: Some(user),
            expires_s: Some(expires_s),
            by_cookie: true,
        }))
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::WrongPassword => Self::fixed(Code::WrongPassword, "The name or the password is wrong."),
            LoginError::TooManyAttempts => {
                Self::fixed(Code::TooManyAttempts, "Too many login attempts; wait a minute.")
            }
            LoginError::RegistryUnreachable => Self::fixed(
                Code::RegistryUnreachable,
                "The registry does not answer, so logging in is not possible now.",
            ),
        }
    }
}

/// Name and password of HTTP Basic (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, Secret)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // Treat malformed credentials as a wrong password.
    let text = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (name, password) = text.split_once(':').unwrap_or_default();
    Some((name.to_owned(), Secret::new(password)))
}

/// A bearer token (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Now, in Unix seconds.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::http::Request;

    use super::*;
    use crate::http::serve::client::Encryption;

    fn headers(headers: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().headers().clone()
    }

    #[test]
    fn credentials_are_read_only_from_basic_and_the_session_cookie() {
        let read = |value: &str| basic(&headers(&[("authorization", value)]));
        let (name, password) = read("basic YWRtaW46YTpi").unwrap();
        assert_eq!((name.as_str(), password.reveal()), ("admin", "a:b"));
        for garbage in ["Basic !!!", "Basic ", "Basic YQ=="] {
            assert_eq!(read(garbage).unwrap().1.reveal(), "", "{garbage}");
        }
        assert!(read("Bearer YWRtaW46YTpi").is_none() && read("Basic").is_none());
        let headers = headers(&[
            ("cookie", "a=b; headwater_session2=x; __Host-headwater_session=secure"),
            ("cookie", "headwater_session=local"),
        ]);
        let client = |encryption, is_local| Client { address: Ipv4Addr::LOCALHOST.into(), encryption, is_local };
        for (encryption, is_local, expected) in [
            (Encryption::None, true, Some("local")),
            (Encryption::None, false, None),
            (Encryption::SelfSigned, false, Some("secure")),
            (Encryption::Certified, true, Some("secure")),
        ] {
            assert_eq!(session_cookie(&headers, client(encryption, is_local)), expected, "{encryption:?} {is_local}");
        }
    }
}
