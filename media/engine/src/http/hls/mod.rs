//! HLS and LL-HLS over HTTP: paths and query in, shared bytes out.
//!
//! | path | what |
//! | --- | --- |
//! | `/APP/streams/ID.m3u8`, `/APP/streams/ID/playlist.m3u8` | media playlist |
//! | `/APP/streams/ID_adaptive.m3u8` | multivariant playlist |
//! | `/APP/streams/ID/STARTED_AT_MS/NAME` | initialisation segment, segment or part (`wire::hls::Resource`) |
//!
//! An answer is found in the same way (`find`) whether the request has come through the router, past it ([`is_plain`]) or on a
//! connection that brings nothing else ([`plain`]).

mod address;
mod find;
pub(super) mod plain;

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

use self::address::Wanted;
use self::find::{Found, find};
use super::{Code, Peer, Problem, State};

/// Playlists, init sections, segments and parts, for whatever way their addresses are written.
pub(crate) fn routes() -> Router<State> {
    Router::new()
        .route("/{app}/streams/{file}", get(beside))
        .route("/{app}/streams/{id}/{file}", get(inside))
        .route("/{app}/streams/{id}/{started_at_ms}/{name}", get(resource))
}

type Handled = axum::extract::State<State>;

async fn beside(state: Handled, Path((app, file)): Path<(String, String)>, request: Request) -> Response {
    let wanted = Wanted::Beside { app: &app, file: &file };
    answer(&state, wanted, request.uri().query(), viewer(forwarded(request.headers()), peer(&request))).await
}

async fn inside(state: Handled, Path((app, id, file)): Path<(String, String, String)>, request: Request) -> Response {
    let wanted = Wanted::Inside { app: &app, id: &id, file: &file };
    answer(&state, wanted, request.uri().query(), viewer(forwarded(request.headers()), peer(&request))).await
}

async fn resource(
    state: Handled,
    Path((app, id, started_at_ms, name)): Path<(String, String, String, String)>,
) -> Response {
    let wanted = Wanted::Resource { app: &app, id: &id, started_at_ms: &started_at_ms, name: &name };
    answer(&state, wanted, None, 0).await
}

fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().map(|Peer(address)| *address)
}

/// True for a GET of an address that can be answered by [`answer_plain`]: there is nothing in it to decode.
pub(super) fn is_plain<B>(request: &hyper::Request<B>) -> bool {
    request.method() == Method::GET && Wanted::parse(request.uri().path()).is_some()
}

/// The same answer that the router leads to, without the way through it: players ask all the time.
pub(super) async fn answer_plain<B>(state: &State, request: hyper::Request<B>, peer: SocketAddr) -> Response {
    match Wanted::parse(request.uri().path()) {
        Some(wanted) => {
            let viewer = viewer(forwarded(request.headers()), Some(peer));
            answer(state, wanted, request.uri().query(), viewer).await
        }
        None => readable(Problem::fixed(Code::NotFound, "There is nothing at this address.").into_response()),
    }
}

async fn answer(state: &State, wanted: Wanted<'_>, query: Option<&str>, viewer: u64) -> Response {
    match find(state, wanted, query, viewer).await {
        Ok(found) => response(found),
        Err(problem) => readable(problem.into_response()),
    }
}

fn response(found: Found) -> Response {
    let (content_type, cache_control) = (found.content_type(), found.cache_control());
    let body = match found {
        Found::Playlist(text) => Body::from(text),
        Found::Resource(pieces) => Body::new(Pieces::new(pieces)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    readable(response)
}

/// Players on pages of any origin may read the answer, errors too (Fetch §3.3.3).
fn readable(mut response: Response) -> Response {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn forwarded(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get("x-forwarded-for").map(HeaderValue::as_bytes)
}

/// Tells players apart: the address a load balancer reports in `X-Forwarded-For`, else that of the connection. Only ever
/// counted.
fn viewer(forwarded: Option<&[u8]>, peer: Option<SocketAddr>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    match forwarded.and_then(|list| list.split(|&b| b == b',').next()) {
        Some(first) => KEYS.hash_one(first.trim_ascii()),
        None => peer.map_or(0, |address| KEYS.hash_one(address.ip())),
    }
}

/// A body of known length, in shared pieces that are never copied together.
#[derive(Debug)]
struct Pieces {
    rest: std::vec::IntoIter<Bytes>,
    rest_bytes: u64,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        let rest_bytes = pieces.iter().map(|p| p.len() as u64).sum();
        Self { rest: pieces.into_iter(), rest_bytes }
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        Poll::Ready(this.rest.next().map(|piece| {
            this.rest_bytes -= piece.len() as u64;
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_an_address_with_nothing_to_decode_is_plain() {
        let request = |method, uri| hyper::Request::builder().method(method).uri(uri).body(()).unwrap();
        assert!(is_plain(&request(Method::GET, "/live/streams/a.m3u8?_HLS_msn=1%20")));
        assert!(!is_plain(&request(Method::GET, "/live/streams/%61.m3u8")));
        assert!(!is_plain(&request(Method::HEAD, "/live/streams/a.m3u8")));
        assert!(!is_plain(&request(Method::GET, "/rest/v2/version")));
    }
}
