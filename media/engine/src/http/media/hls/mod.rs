//! HLS and LL-HLS over HTTP: path and query in, shared bytes out.
//!
//! | path | content |
//! | --- | --- |
//! | `/APP/streams/ID.m3u8`, `/APP/streams/ID/playlist.m3u8` | media playlist |
//! | `/APP/streams/ID_adaptive.m3u8` | multivariant playlist |
//! | `/APP/streams/ID/STARTED_AT_MS/NAME` | initialization segment, segment or part (`wire::hls::Resource`) |
//!
//! `find` serves three ways of requests: through the router, past it ([`is_direct`]), and on a
//! connection of the fast path (`serve::fast_path`).

pub(in crate::http) mod find;
pub(in crate::http) mod path;

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::http::media::hls::find::{HlsContent, find};
use crate::http::media::hls::path::HlsPath;
use crate::http::{Code, Peer, Problem, AppState};

/// Routes of playlists, initialization segments, segments and parts, also percent-encoded ones.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/{app}/streams/{file}", get(flat_playlist))
        .route("/{app}/streams/{id}/{file}", get(nested_playlist))
        .route("/{app}/streams/{id}/{started_at_ms}/{name}", get(resource))
}

type Handled = axum::extract::State<AppState>;

async fn flat_playlist(state: Handled, Path((app, file)): Path<(String, String)>, request: Request) -> Response {
    let path = HlsPath::FlatPlaylist { app: &app, file: &file };
    respond(&state, path, request.uri().query(), viewer_id(forwarded(request.headers()), peer(&request))).await
}

async fn nested_playlist(state: Handled, Path((app, id, file)): Path<(String, String, String)>, request: Request) -> Response {
    let path = HlsPath::NestedPlaylist { app: &app, id: &id, file: &file };
    respond(&state, path, request.uri().query(), viewer_id(forwarded(request.headers()), peer(&request))).await
}

async fn resource(
    state: Handled,
    Path((app, id, started_at_ms, name)): Path<(String, String, String, String)>,
) -> Response {
    let path = HlsPath::Resource { app: &app, id: &id, started_at_ms: &started_at_ms, name: &name };
    respond(&state, path, None, 0).await
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().map(|Peer(address)| *address)
}

/// True for a GET of an HLS path without percent-encoding, which [`respond_direct`] can answer.
pub(crate) fn is_direct<B>(request: &hyper::Request<B>) -> bool {
    request.method() == Method::GET && HlsPath::parse(request.uri().path()).is_some()
}

/// Responds like the router, without its cost: players send several requests per second.
pub(crate) async fn respond_direct<B>(state: &AppState, request: hyper::Request<B>, peer: SocketAddr) -> Response {
    match HlsPath::parse(request.uri().path()) {
        Some(path) => {
            let viewer = viewer_id(forwarded(request.headers()), Some(peer));
            respond(state, path, request.uri().query(), viewer).await
        }
        None => allow_any_origin(Problem::fixed(Code::NotFound, "There is nothing at this address.").into_response()),
    }
}

async fn respond(state: &AppState, path: HlsPath<'_>, query: Option<&str>, viewer: u64) -> Response {
    match find(state, path, query, viewer).await {
        Ok(found) => response(found),
        Err(problem) => allow_any_origin(problem.into_response()),
    }
}

fn response(found: HlsContent) -> Response {
    let (content_type, cache_control) = (found.content_type(), found.cache_control());
    let body = match found {
        HlsContent::Playlist(text) => Body::from(text),
        HlsContent::Resource(pieces) => Body::new(PiecesBody::new(pieces)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    allow_any_origin(response)
}

/// Allows pages of any origin to read the response, including errors (Fetch §3.3.3).
pub(in crate::http) fn allow_any_origin(mut response: Response) -> Response {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn forwarded(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("x-forwarded-for").map(HeaderValue::as_bytes)
}

/// Identifies a player by the first address in `X-Forwarded-For`, which a load balancer adds, else
/// by the address of the connection. Only used to count viewers.
pub(in crate::http) fn viewer_id(forwarded: Option<&[u8]>, peer: Option<SocketAddr>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    match forwarded.and_then(|list| list.split(|&b| b == b',').next()) {
        Some(first) => KEYS.hash_one(first.trim_ascii()),
        None => peer.map_or(0, |address| KEYS.hash_one(address.ip())),
    }
}

/// A response body of known length, in shared pieces that are not copied together.
#[derive(Debug)]
struct PiecesBody {
    remaining: std::vec::IntoIter<Bytes>,
    remaining_bytes: u64,
}

impl PiecesBody {
    fn new(pieces: Vec<Bytes>) -> Self {
        let remaining_bytes = pieces.iter().map(|p| p.len() as u64).sum();
        Self { remaining: pieces.into_iter(), remaining_bytes }
    }
}

impl hyper::body::Body for PiecesBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        Poll::Ready(this.remaining.next().map(|piece| {
            this.remaining_bytes -= piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_an_unencoded_path_is_direct() {
        let request = |method, uri| hyper::Request::builder().method(method).uri(uri).body(()).unwrap();
        assert!(is_direct(&request(Method::GET, "/live/streams/a.m3u8?_HLS_msn=1%20")));
        assert!(!is_direct(&request(Method::GET, "/live/streams/%61.m3u8")));
        assert!(!is_direct(&request(Method::HEAD, "/live/streams/a.m3u8")));
        assert!(!is_direct(&request(Method::GET, "/rest/v2/version")));
    }
}
