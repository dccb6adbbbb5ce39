//! Which paths pages of other origins may use, and the header fields that say so (Fetch §3.3).
//!
//! Media may be played from any page, so every response of a media path has the header fields,
//! errors included. REST may be read from any page; what changes something also needs a request
//! from a page of this server, which `auth` checks. Must not know which streams exist.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

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

    /// Adds the header fields of every response.
    pub(crate) fn allow_any_origin(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
}

/// The response to any OPTIONS request: to the preflight requests of browsers, and to the checks of
/// load balancers that use this method.
pub(crate) fn respond_to_options(policy: Option<CorsPolicy>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = policy.map_or("GET, HEAD, OPTIONS", CorsPolicy::methods);
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if let Some(policy) = policy {
        policy.allow_any_origin(headers);
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
