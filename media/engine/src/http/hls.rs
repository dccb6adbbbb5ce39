//! HLS and LL-HLS over HTTP: paths and query in, shared bytes out.
//!
//! | path | what |
//! | --- | --- |
//! | `/APP/streams/ID.m3u8`, `/APP/streams/ID/playlist.m3u8` | media playlist |
//! | `/APP/streams/ID_adaptive.m3u8` | multivariant playlist |
//! | `/APP/streams/ID/STARTED_AT_MS/NAME` | initialisation segment, segment or part (`wire::hls::Resource`) |

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::hls::{Reload, Resource};
use hyper::body::{Frame, SizeHint};

use super::{Code, Peer, Problem, State};
use crate::gateway::hls::{Form, HlsError};

/// Playlists, init sections, segments and parts.
pub(crate) fn routes() -> Router<State> {
    Router::new()
        .route("/{app}/streams/{file}", get(beside))
        .route("/{app}/streams/{id}/{file}", get(inside))
        .route("/{app}/streams/{id}/{started_at_ms}/{name}", get(resource))
}

type Handled = axum::extract::State<State>;

async fn beside(
    state: Handled,
    Path((app, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let viewer = viewer(&request);
    let answer = async {
        let stem = file.strip_suffix(".m3u8").ok_or(NOTHING_HERE)?;
        let name = stream_name(&state, &app, stem)?;
        // A stream may be called `a_adaptive`; if it is not there, the multivariant playlist of `a` is meant.
        let (name, form) = match stem.strip_suffix("_adaptive") {
            Some(id) => {
                let plain = stream_name(&state, &app, id)?;
                // Asked in this order, the common case costs no look-up elsewhere.
                if state.hub.stream(&name).is_none()
                    && (state.hub.find(&plain).await.is_some() || state.hub.find(&name).await.is_none())
                {
                    (plain, Form::Multivariant)
                } else {
                    (name, Form::Beside)
                }
            }
            None => (name, Form::Beside),
        };
        playlist(&state, &name, form, query.as_deref(), viewer).await
    };
    for_everybody(answer.await)
}

async fn inside(
    state: Handled,
    Path((app, id, file)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let viewer = viewer(&request);
    let answer = async {
        if file != "playlist.m3u8" {
            return Err(NOTHING_HERE);
        }
        let name = stream_name(&state, &app, &id)?;
        playlist(&state, &name, Form::Inside, query.as_deref(), viewer).await
    };
    for_everybody(answer.await)
}

async fn resource(
    state: Handled,
    Path((app, id, started_at_ms, name)): Path<(String, String, String, String)>,
) -> Response {
    let answer = async {
        let stream = stream_name(&state, &app, &id)?;
        let started_at_ms = started_at_ms.parse().map_err(|_| NOTHING_HERE)?;
        let resource = Resource::parse(&name).ok_or(NOTHING_HERE)?;
        let pieces = state.hls.resource(&state.hub, &stream, started_at_ms, resource).await?;
        // Its address holds the stream's beginning and a number that is given once.
        Ok(answer("video/mp4", "public, max-age=3600, immutable", Body::new(Pieces::new(pieces))))
    };
    for_everybody(answer.await)
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
    Ok(answer("application/vnd.apple.mpegurl", "public, max-age=1", Body::from(text)))
}

fn stream_name(state: &State, app: &str, id: &str) -> Result<StreamName, Problem> {
    if !state.apps.contains(app) {
        return Err(Problem::new(Code::AppNotFound, "There is no such app."));
    }
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

/// Tells players apart: the address a load balancer reports, else that of the connection. Only ever counted.
fn viewer(request: &Request) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let forwarded = |headers: &HeaderMap| {
        let list = headers.get("x-forwarded-for")?.as_bytes();
        let first = list.split(|&b| b == b',').next()?.trim_ascii();
        Some(KEYS.hash_one(first))
    };
    let peer = || request.extensions().get::<Peer>().map_or(0, |Peer(address)| KEYS.hash_one(address.ip()));
    forwarded(request.headers()).unwrap_or_else(peer)
}

fn answer(content_type: &'static str, cache: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// Players on pages of any origin may read the answer, errors too (Fetch §3.3.3).
fn for_everybody(answer: Result<Response, Problem>) -> Response {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

const NOTHING_HERE: Problem = Problem::fixed(Code::NotFound, "There is nothing at this address.");

impl From<HlsError> for Problem {
    fn from(e: HlsError) -> Self {
        match e {
            HlsError::NoStream(name) => Self::stream_not_found(&name),
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
