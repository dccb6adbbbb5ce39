//! What a client presents to be admitted: a token or a publish key.
//!
//! RTMP clients put it into the query of the app or of the stream (`demo?token=…`), HTTP clients
//! (HLS and WHEP) into the query of the URL or into an `Authorization: Bearer` header. Parsed only
//! when a policy asks for it: most requests of HLS players need no decision beyond the app.

use std::borrow::Cow;
use std::fmt;

/// The credentials of one request, borrowed from it. `Debug` hides them.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    query: Option<&'a str>,
    app_query: Option<&'a str>,
    bearer: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// From the query of a URL or a stream id, without the `?`.
    pub fn from_query(query: Option<&'a str>) -> Self {
        Self { query, ..Self::default() }
    }

    /// Adds the query of an RTMP app, which counts where the stream id has none of its own.
    pub fn with_app_query(self, app_query: Option<&'a str>) -> Self {
        Self { app_query, ..self }
    }

    /// Adds the value of an `Authorization` header, if it is a bearer token (RFC 6750 §2.1).
    pub fn with_authorization(self, header: Option<&'a str>) -> Self {
        let bearer = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        Self { bearer, ..self }
    }

    /// The token: a bearer token, else the parameter `token`.
    pub fn token(&self) -> Option<Cow<'a, str>> {
        self.bearer.map(Cow::Borrowed).or_else(|| self.parameter("token"))
    }

    /// The publish key: the parameter `key`.
    pub fn publish_key(&self) -> Option<Cow<'a, str>> {
        self.parameter("key")
    }

    /// The play session that a playlist's URL carries: the parameter `session`.
    pub fn session(&self) -> Option<Cow<'a, str>> {
        self.parameter("session")
    }

    /// The signature of a media URL: the parameter `sig`.
    pub fn url_signature(&self) -> Option<Cow<'a, str>> {
        self.parameter("sig")
    }

    /// The first parameter of this name that is not empty, percent-decoded.
    fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        let queries = [self.query, self.app_query].into_iter().flatten();
        let mut parameters = queries.flat_map(|query| form_urlencoded::parse(query.as_bytes()));
        parameters.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_query_precedes_the_query_of_the_app() {
        let both = Credentials::from_query(Some("token=a&x=1")).with_app_query(Some("token=b&key=c"));
        assert_eq!(both.token().as_deref(), Some("a"));
        assert_eq!(both.publish_key().as_deref(), Some("c"));
        let app_only = Credentials::from_query(None).with_app_query(Some("token=b"));
        assert_eq!(app_only.token().as_deref(), Some("b"));
    }

    #[test]
    fn bearer_token_precedes_the_query_and_other_schemes_are_ignored() {
        let query = Credentials::from_query(Some("token=a%20b"));
        assert_eq!(query.token().as_deref(), Some("a b"));
        assert_eq!(query.with_authorization(Some("Bearer t")).token().as_deref(), Some("t"));
        assert_eq!(query.with_authorization(Some("bearer t")).token().as_deref(), Some("t"));
        assert_eq!(query.with_authorization(Some("Basic dXNlcg==")).token().as_deref(), Some("a b"));
    }

    #[test]
    fn empty_and_absent_parameters_are_no_credentials() {
        assert_eq!(Credentials::default().token(), None);
        assert_eq!(Credentials::from_query(Some("token=&key")).token(), None);
        assert_eq!(Credentials::from_query(Some("token=&key")).publish_key(), None);
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let secret = Credentials::from_query(Some("token=hidden")).with_authorization(Some("Bearer hidden"));
        assert_eq!(format!("{secret:?}"), "Credentials(…)");
    }
}
