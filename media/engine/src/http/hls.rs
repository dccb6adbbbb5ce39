//! HLS and LL-HLS over HTTP: paths and query in, shared bytes out.
//!
//! | path | what |
//! | --- | --- |
//! | `/APP/streams/ID.m3u8`, `/APP/streams/ID/playlist.m3u8` | media playlist |
//! | `/APP/streams/ID_adaptive.m3u8` | multivariant playlist |
//! | `/APP/streams/ID/STARTED_AT_MS/NAME` | initialisation segment, segment or part (`wire::hls::Resource`) |

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
use headwater_api::StreamName;
use headwater_wire::hls::{Reload, Resource};
use hyper::body::{Frame, SizeHint};

use super::{Code, Peer, Problem, State};
use crate::gateway::hls::{Form, HlsError};
use crate::hub::Missing;

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
    answer(&state, wanted, request.uri().query(), viewer(request.headers(), peer(&request))).await
}

async fn inside(state: Handled, Path((app, id, file)): Path<(String, String, String)>, request: Request) -> Response {
    let wanted = Wanted::Inside { app: &app, id: &id, file: &file };
    answer(&state, wanted, request.uri().query(), viewer(request.headers(), peer(&request))).await
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
    let path = request.uri().path();
    request.method() == Method::GET && !path.contains('%') && Wanted::parse(path).is_some()
}

/// The same answer that the router leads to, without the way through it: players ask all the time.
pub(super) async fn answer_plain<B>(state: State, request: hyper::Request<B>, peer: SocketAddr) -> Response {
    match Wanted::parse(request.uri().path()) {
        Some(wanted) => answer(&state, wanted, request.uri().query(), viewer(request.headers(), Some(peer))).await,
        None => NOTHING_HERE.into_response(),
    }
}

/// The parts of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted<'a> {
    Beside { app: &'a str, file: &'a str },
    Inside { app: &'a str, id: &'a str, file: &'a str },
    Resource { app: &'a str, id: &'a str, started_at_ms: &'a str, name: &'a str },
}

impl<'a> Wanted<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let app = parts.next()?;
        if parts.next()? != "streams" {
            return None;
        }
        let rest = [parts.next(), parts.next(), parts.next(), parts.next()];
        if app.is_empty() || rest.contains(&Some("")) {
            return None;
        }
        match rest {
            [Some(file), None, ..] => Some(Self::Beside { app, file }),
            [Some(id), Some(file), None, _] => Some(Self::Inside { app, id, file }),
            [Some(id), Some(started_at_ms), Some(name), None] => Some(Self::Resource { app, id, started_at_ms, name }),
            _ => None,
        }
    }
}

/// Players on pages of any origin may read the answer, errors too (Fetch §3.3.3).
async fn answer(state: &State, wanted: Wanted<'_>, query: Option<&str>, viewer: u64) -> Response {
    let found = match wanted {
        Wanted::Beside { app, file } => playlist_beside(state, app, file, query, viewer).await,
        Wanted::Inside { app, id, file } => playlist_inside(state, app, id, file, query, viewer).await,
        Wanted::Resource { app, id, started_at_ms, name } => piece(state, app, id, started_at_ms, name).await,
    };
    let mut response = found.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn playlist_beside(
    state: &State,
    app: &str,
    file: &str,
    query: Option<&str>,
    viewer: u64,
) -> Result<Response, Problem> {
    let stem = file.strip_suffix(".m3u8").ok_or(NOTHING_HERE)?;
    let name = stream_name(state, app, stem)?;
    // A stream may be called `a_adaptive`; if it is not there, the multivariant playlist of `a` is meant.
    let (name, form) = match stem.strip_suffix("_adaptive") {
        Some(id) => {
            let plain = stream_name(state, app, id)?;
            // Asked in this order, the common case costs no look-up elsewhere.
            if state.hub.stream(&name).is_none()
                && (state.hub.find(&plain).await.is_ok() || state.hub.find(&name).await.is_err())
            {
                (plain, Form::Multivariant)
            } else {
                (name, Form::Beside)
            }
        }
        None => (name, Form::Beside),
    };
    playlist(state, &name, form, query, viewer).await
}

async fn playlist_inside(
    state: &State,
    app: &str,
    id: &str,
    file: &str,
    query: Option<&str>,
    viewer: u64,
) -> Result<Response, Problem> {
    if file != "playlist.m3u8" {
        return Err(NOTHING_HERE);
    }
    let name = stream_name(state, app, id)?;
    playlist(state, &name, Form::Inside, query, viewer).await
}

async fn piece(state: &State, app: &str, id: &str, started_at_ms: &str, name: &str) -> Result<Response, Problem> {
    let stream = stream_name(state, app, id)?;
    let started_at_ms = started_at_ms.parse().map_err(|_| NOTHING_HERE)?;
    let resource = Resource::parse(name).ok_or(NOTHING_HERE)?;
    let pieces = state.hls.resource(&state.hub, &stream, started_at_ms, resource).await?;
    // Its address holds the stream's beginning and a number that is given once.
    Ok(response("video/mp4", "public, max-age=3600, immutable", Body::new(Pieces::new(pieces))))
}

async fn playlist(
    state: &State,
    name: &StreamName,
    form: Form,
    query: Option<&str>,
    viewer: u64,
) -> Result<Response, Problem> {
    let reload = Reload::parse(query.unwrap_or_default())
        .map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {e}.")))?;
    if !state.hls.knows(name, viewer) {
        let elsewhere = || {
            let base = state.door.elsewhere()?;
            Some(format!("{}/{}/streams/{}.m3u8", base.trim_end_matches('/'), name.app(), name.stream_id()))
        };
        state.door.room().map_err(|refusal| Problem::from(refusal).elsewhere(elsewhere()))?;
    }
    let text = state.hls.playlist(&state.hub, name, form, reload, viewer).await?;
    // A second in a cache spares the origin a crowd; what blocks has a new address for every part.
    Ok(response("application/vnd.apple.mpegurl", "public, max-age=1", Body::from(text)))
}

fn stream_name(state: &State, app: &str, id: &str) -> Result<StreamName, Problem> {
    if !state.apps.contains(app) {
        return Err(Problem::new(Code::AppNotFound, "There is no such app."));
    }
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

/// Tells players apart: the address a load balancer reports, else that of the connection. Only ever counted.
fn viewer(headers: &HeaderMap, peer: Option<SocketAddr>) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let forwarded = headers.get("x-forwarded-for").and_then(|list| list.as_bytes().split(|&b| b == b',').next());
    match forwarded {
        Some(first) => KEYS.hash_one(first.trim_ascii()),
        None => peer.map_or(0, |address| KEYS.hash_one(address.ip())),
    }
}

fn response(content_type: &'static str, cache: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

const NOTHING_HERE: Problem = Problem::fixed(Code::NotFound, "There is nothing at this address.");

impl From<HlsError> for Problem {
    fn from(e: HlsError) -> Self {
        match e {
            HlsError::NoStream(name) => Self::missing(Missing::Unknown, &name),
            HlsError::Full(name) => Self::missing(Missing::Full, &name),
            HlsError::NotYet => Self::new(Code::NotYet, "What was asked for did not come in time; try again."),
            HlsError::TooFarAhead => {
                Self::new(Code::BadRequest, "_HLS_msn or _HLS_part is too far ahead of the stream.")
            }
            HlsError::NoResource => Self::new(Code::SegmentNotFound, "There is no such segment (any more)."),
        }
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
    fn the_addresses_of_hls_are_told_from_all_others() {
        let beside = Wanted::Beside { app: "live", file: "a.m3u8" };
        assert_eq!(Wanted::parse("/live/streams/a.m3u8"), Some(beside));
        let inside = Wanted::Inside { app: "live", id: "a", file: "playlist.m3u8" };
        assert_eq!(Wanted::parse("/live/streams/a/playlist.m3u8"), Some(inside));
        let resource = Wanted::Resource { app: "live", id: "a", started_at_ms: "7", name: "8.m4s" };
        assert_eq!(Wanted::parse("/live/streams/a/7/8.m4s"), Some(resource));
        for other in ["", "/", "/live/streams", "/live/streams/", "/live/streams/a/", "/live/streams//b", "//streams/a"]
        {
            assert_eq!(Wanted::parse(other), None, "{other}");
        }
        assert_eq!(Wanted::parse("/live/whep/a"), None);
        assert_eq!(Wanted::parse("/live/streams/a/7/8.m4s/9"), None);
    }

    #[test]
    fn only_a_get_of_an_address_with_nothing_to_decode_is_plain() {
        let request = |method, uri| hyper::Request::builder().method(method).uri(uri).body(()).unwrap();
        assert!(is_plain(&request(Method::GET, "/live/streams/a.m3u8?_HLS_msn=1%20")));
        assert!(!is_plain(&request(Method::GET, "/live/streams/%61.m3u8")));
        assert!(!is_plain(&request(Method::HEAD, "/live/streams/a.m3u8")));
        assert!(!is_plain(&request(Method::GET, "/rest/v2/version")));
    }
}
