//! Identifies the caller of a request, and the authorization middleware: only the administrator may
//! change something, and only from a page of this server or from a program.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_api::secret::Secret;
use headwater_api::documents::{Rights, UserDocument};

use super::accounts::LoginError;
use crate::http::{Code, Peer, Problem, AppState};

/// The caller of a request; usually without a login.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Caller {
    user: Option<Arc<UserDocument>>,
    /// End of the session, in Unix seconds; `None` without a session.
    pub(super) expires_s: Option<u64>,
    /// True if a cookie identifies the caller. A browser also sends it with requests of other
    /// pages.
    by_cookie: bool,
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

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    /// Refuses a wrong password. An expired session counts as no login.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        if let Some((name, password)) = basic(&parts.headers) {
            let user = state.accounts.by_password(client_ip(parts), &name, password).await?;
            return Ok(Self { user: Some(user), expires_s: None, by_cookie: false });
        }
        let Some(cookie) = cookie(&parts.headers) else { return Ok(Self::default()) };
        let session = state.accounts.by_session(cookie, super::login::now_s()).await;
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
            LoginError::TooManyAttempts => Self::fixed(Code::TooManyAttempts, "Too many login attempts; wait a minute."),
            LoginError::RegistryUnreachable => {
                Self::fixed(Code::RegistryUnreachable, "The registry does not answer, so logging in is not possible now.")
            }
        }
    }
}

/// Middleware of all REST routes: refuses requests that change something unless the
/// caller is the administrator.
pub(in crate::http) async fn require_administrator(Extract(state): Extract<AppState>, request: Request, next: Next) -> Response {
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
    if parts.uri.path() == super::login::PATH {
        return check_same_origin(&parts.headers, false);
    }
    let caller = Caller::from_request_parts(parts, state).await?;
    if caller.user.is_none() {
        return Err(Problem::fixed(Code::Unauthorized, "Only the administrator may do this: log in first."));
    }
    check_same_origin(&parts.headers, caller.by_cookie)?;
    if !caller.is_administrator() {
        return Err(Problem::fixed(Code::Forbidden, "Only an administrator may do this."));
    }
    Ok(())
}

/// Refuses requests of pages of another origin. With `must_say`, also refuses requests without an
/// `Origin` header.
fn check_same_origin(headers: &HeaderMap, require_origin: bool) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let own = match text(header::ORIGIN) {
        None => !require_origin,
        Some(origin) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|a| text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(a)))
        }
    };
    if own {
        Ok(())
    } else {
        Err(Problem::fixed(Code::CrossOrigin, "This request does not come from a page of this server."))
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

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(super::login::COOKIE)?.strip_prefix('='))
}

/// The address of the client. A load balancer connects from a private address and appends the
/// client's address to `X-Forwarded-For`; the header is ignored on connections from public
/// addresses.
pub(super) fn client_ip(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>().map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.0.ip().to_canonical());
    let is_private = match peer {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    };
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.filter(|_| is_private).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn parts(peer: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(Peer(SocketAddr::new(peer.parse().unwrap(), 1)));
        parts
    }

    #[test]
    fn forwarded_address_is_used_only_from_a_private_peer() {
        let check = |peer: &str, forwarded: &str, expected: &str| {
            let address = client_ip(&parts(peer, &[("x-forwarded-for", forwarded)]));
            assert_eq!(address, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded}");
        };
        check("10.0.0.5", "9.9.9.9, 198.51.100.7", "198.51.100.7");
        check("::ffff:10.0.0.5", "2001:db8::1", "2001:db8::1");
        check("203.0.113.9", "198.51.100.7", "203.0.113.9");
        check("10.0.0.5", "nonsense", "10.0.0.5");
    }

    #[test]
    fn request_of_another_origin_is_refused() {
        let check = |headers: &[(&str, &str)], require_origin: bool, expected: bool| {
            let passed = check_same_origin(&parts("::1", headers).headers, require_origin).is_ok();
            assert_eq!(passed, expected, "{headers:?}");
        };
        check(&[("host", "a:5080"), ("origin", "http://A:5080")], true, true);
        check(&[("host", "a:5080"), ("origin", "http://a")], true, false);
        check(&[("host", "a"), ("origin", "https://evil.example")], false, false);
        check(&[("host", "a"), ("origin", "null")], false, false);
        check(&[("origin", "http://a")], false, false);
        check(&[("host", "a")], false, true);
        check(&[("host", "a")], true, false);
    }

    #[test]
    fn credentials_are_read_only_from_basic_and_the_session_cookie() {
        let read = |value: &str| basic(&parts("::1", &[("authorization", value)]).headers);
        let (name, password) = read("basic YWRtaW46YTpi").unwrap();
        assert_eq!((name.as_str(), password.reveal()), ("admin", "a:b"));
        for garbage in ["Basic !!!", "Basic ", "Basic YQ=="] {
            assert_eq!(read(garbage).unwrap().1.reveal(), "", "{garbage}");
        }
        assert!(read("Bearer YWRtaW46YTpi").is_none() && read("Basic").is_none());
        let parts = parts("::1", &[("cookie", "a=b; headwater_session2=x"), ("cookie", "headwater_session=abc")]);
        assert_eq!(cookie(&parts.headers), Some("abc"));
    }
}
