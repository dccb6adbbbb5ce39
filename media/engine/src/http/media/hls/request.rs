//! An HLS request, reduced to what its response depends on.

use std::net::IpAddr;

use axum::http::{Method, Request};

use crate::access::Credentials;
use crate::http::media::authorize::authorization;
use crate::http::media::hls::path::HlsPath;
use crate::http::media::hls::viewer_id::viewer_id;
use crate::http::serve::client::Client;

/// A GET or HEAD request of an HLS path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct HlsRequest<'a> {
    pub(in crate::http) path: HlsPath<'a>,
    pub(in crate::http) query: Option<&'a str>,
    /// Value of the header field `Authorization`.
    pub(in crate::http) authorization: Option<&'a str>,
    /// Identifies the player, for the viewer count.
    pub(in crate::http) viewer: u64,
    /// Address of the client.
    pub(in crate::http) client: IpAddr,
    /// True if the response has no body.
    pub(in crate::http) is_head: bool,
}

impl<'a> HlsRequest<'a> {
    /// Parses a request that needs no router. `None` if it is no GET, if its path is no HLS path,
    /// or if the path is percent-encoded: the router decodes it.
    pub(in crate::http) fn parse<B>(request: &'a Request<B>, client: Client) -> Option<Self> {
        if request.method() != Method::GET {
            return None;
        }
        Some(Self::new(HlsPath::parse(request.uri().path())?, request, client))
    }

    /// A request whose path the router has decoded.
    pub(super) fn new<B>(path: HlsPath<'a>, request: &'a Request<B>, client: Client) -> Self {
        let is_head = request.method() == Method::HEAD;
        let (query, authorization) = (request.uri().query(), authorization(request.headers()));
        Self { path, query, authorization, viewer: viewer_id(client), client: client.address, is_head }
    }

    /// What the player presented.
    pub(super) fn credentials(&self) -> Credentials<'a> {
        Credentials::from_query(self.query).with_authorization(self.authorization)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_an_unencoded_path_needs_no_router() {
        let is_direct = |method, uri| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            HlsRequest::parse(&request, Client::of(request.extensions())).is_some()
        };
        assert!(is_direct(Method::GET, "/live/streams/a.m3u8?_HLS_msn=1%20"));
        assert!(!is_direct(Method::GET, "/live/streams/%61.m3u8"));
        assert!(!is_direct(Method::HEAD, "/live/streams/a.m3u8"));
        assert!(!is_direct(Method::GET, "/rest/v2/version"));
    }

    #[test]
    fn request_has_the_authorization_of_its_head() {
        let request = Request::builder().uri("/live/streams/a.m3u8").header("authorization", "Bearer x");
        let request = request.body(()).unwrap();
        let parsed = HlsRequest::parse(&request, Client::of(request.extensions())).unwrap();
        assert_eq!(parsed.authorization, Some("Bearer x"));
    }
}
