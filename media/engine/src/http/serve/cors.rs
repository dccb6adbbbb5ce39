//! Which paths pages of other origins may use, and the header fields that say so (Fetch §3.3).
//!
//! Media may be played from any page, unless the app lists the origins of the pages that may. So
//! every response of a media path has the header fields, errors included. REST may be read from any
//! page; what changes something also needs a request from a page of this server, which `auth`
//! checks. Must not know which streams exist.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::access::{Access, AllowedOrigins};

/// What pages of other origins may do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CorsPolicy {
    /// Play HLS.
    Hls,
    /// Play with WHEP.
    Whep,
    /// Read REST.
    Rest,
}

/// Header fields of the responses that a page may read, besides those that every page may.
pub(crate) const EXPOSED_HEADERS: &str = "Age, Date, ETag, Link, Location, Retry-After";
/// Header fields that a page may send: credentials, ranges, conditions, and what players report
/// about themselves (CTA-5004 §3.1).
const ALLOWED_HEADERS: &str = "Accept, Authorization, Cache-Control, CMCD-Object, CMCD-Request, CMCD-Session, \
     CMCD-Status, Content-Type, If-Match, If-Modified-Since, If-None-Match, Range";
/// Seconds for which a browser may remember the answer to a preflight request. Browsers have lower
/// limits of their own.
const MAX_AGE_S: &str = "86400";

impl CorsPolicy {
    /// The policy of a path; `None` if it is only for pages of this server.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        match (segments.next(), segments.next()) {
            (Some("rest"), Some(_)) | (Some(_), Some("rest")) => Some(Self::Rest),
            (Some(_), Some("streams")) => Some(Self::Hls),
            (Some(_), Some("whep")) => Some(Self::Whep),
            _ => None,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Hls | Self::Rest => "GET, HEAD, OPTIONS",
            Self::Whep => "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
        }
    }

    /// Which pages may read the response to a request of this path with this value of `Origin`.
    pub(crate) fn readers(self, access: &Access, path: &str, origin: Option<&[u8]>) -> Readers {
        match self {
            Self::Rest => Readers::Any,
            Self::Hls | Self::Whep => Readers::of_app(access, &app_of(path), origin),
        }
    }
}

/// The app in a media path, decoded as the router decodes it. Names of apps need no encoding.
fn app_of(path: &str) -> Cow<'_, str> {
    let app = path.split('/').nth(1).unwrap_or_default();
    let decoded = if app.contains('%') { form_urlencoded::parse(app.as_bytes()).next() } else { None };
    decoded.map_or(Cow::Borrowed(app), |(app, _)| app)
}

/// Which pages may read a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Those of all origins, without credentials.
    Any,
    /// Those of the origin that the request names, with credentials.
    Origin(HeaderValue),
    /// Not those of the origin that the request names.
    Others,
}

impl Readers {
    /// Which pages may read the media of an app.
    pub(crate) fn of_app(access: &Access, app: &str, origin: Option<&[u8]>) -> Self {
        let Some(allowed) = access.allowed_origins(app) else { return Self::Any };
        let is_allowed = |origin: &&[u8]| AllowedOrigins::contains(&allowed, origin);
        let origin = origin.filter(is_allowed).and_then(|origin| HeaderValue::from_bytes(origin).ok());
        origin.map_or(Self::Others, Self::Origin)
    }

    /// Adds the header fields of every response.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        match self {
            Self::Any => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Self::Origin(origin) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                headers.append(header::VARY, HeaderValue::from_static("origin"));
            }
            Self::Others => {
                headers.append(header::VARY, HeaderValue::from_static("origin"));
                return;
            }
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
}

/// The response to any OPTIONS request: to the preflight requests of browsers, and to the checks of
/// load balancers that use this method. The caller adds [`Readers`].
pub(crate) fn respond_to_options(policy: Option<CorsPolicy>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = policy.map_or("GET, HEAD, OPTIONS", CorsPolicy::methods);
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if policy.is_some() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_media_and_rest_are_for_pages_of_other_origins() {
        for (path, expected) in [
            ("/live/streams/a.m3u8", Some(CorsPolicy::Hls)),
            ("/live/streams/a/1/2.m4s", Some(CorsPolicy::Hls)),
            ("/live/whep/a", Some(CorsPolicy::Whep)),
            ("/live/whep/a/session", Some(CorsPolicy::Whep)),
            ("/rest/v2/streams", Some(CorsPolicy::Rest)),
            ("/rest/streams/a", Some(CorsPolicy::Rest)),
            ("/live/rest/v2/broadcasts/list/0/1", Some(CorsPolicy::Rest)),
            ("/", None),
            ("/live/", None),
            ("/live/play.html", None),
            ("/assets/streams.js", None),
            ("*", None),
        ] {
            assert_eq!(CorsPolicy::of(path), expected, "{path}");
        }
    }
}
