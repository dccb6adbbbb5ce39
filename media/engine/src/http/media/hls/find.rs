//! Finds the content of an HLS path, or the error response. Does not know how either is sent.

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::hls::{Reload, Resource};

use crate::gateway::hls::{Form, HlsError};
use crate::http::media::hls::path::Wanted;
use crate::http::{Code, Problem, State};
use crate::hub::Missing;

/// The content of an HLS path.
#[derive(Debug)]
pub(crate) enum Found {
    Playlist(Bytes),
    /// An initialization segment, segment or part, in pieces to send one after another.
    Resource(Vec<Bytes>),
}

impl Found {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Playlist(_) => "application/vnd.apple.mpegurl",
            Self::Resource(_) => "video/mp4",
        }
    }

    /// Value of `Cache-Control` (RFC 9111 §5.2.2).
    pub(crate) fn cache_control(&self) -> &'static str {
        match self {
            // A CDN that caches for a second protects the origin; blocking reloads have a new URL
            // for every part.
            Self::Playlist(_) => "public, max-age=1",
            // The URL contains the stream's start time and a sequence number, so it is never
            // reused.
            Self::Resource(_) => "public, max-age=3600, immutable",
        }
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Playlist(text) => std::slice::from_ref(text),
            Self::Resource(pieces) => pieces,
        }
    }
}

/// Waits for content that is announced but not complete yet. `viewer` identifies the player for the
/// viewer count.
pub(crate) async fn find(
    state: &State,
    wanted: Wanted<'_>,
    query: Option<&str>,
    viewer: u64,
) -> Result<Found, Problem> {
    match wanted {
        Wanted::Beside { app, file } => playlist_beside(state, app, file, query, viewer).await,
        Wanted::Inside { app, id, file } => playlist_inside(state, app, id, file, query, viewer).await,
        Wanted::Resource { app, id, started_at_ms, name } => resource(state, app, id, started_at_ms, name).await,
    }
}

async fn playlist_beside(
    state: &State,
    app: &str,
    file: &str,
    query: Option<&str>,
    viewer: u64,
) -> Result<Found, Problem> {
    let stem = file.strip_suffix(".m3u8").ok_or(NOTHING_HERE)?;
    let name = stream_name(state, app, stem)?;
    // A stream may be named `a_adaptive`; if it is not live, return the multivariant playlist of
    // `a`.
    let (name, form) = match stem.strip_suffix("_adaptive") {
        Some(id) => {
            let plain = stream_name(state, app, id)?;
            // In this order, the common case needs no look-up in the cluster.
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
) -> Result<Found, Problem> {
    if file != "playlist.m3u8" {
        return Err(NOTHING_HERE);
    }
    let name = stream_name(state, app, id)?;
    playlist(state, &name, Form::Inside, query, viewer).await
}

async fn resource(state: &State, app: &str, id: &str, started_at_ms: &str, name: &str) -> Result<Found, Problem> {
    let stream = stream_name(state, app, id)?;
    let started_at_ms = started_at_ms.parse().map_err(|_| NOTHING_HERE)?;
    let resource = Resource::parse(name).ok_or(NOTHING_HERE)?;
    Ok(Found::Resource(state.hls.resource(&state.hub, &stream, started_at_ms, resource).await?))
}

async fn playlist(
    state: &State,
    name: &StreamName,
    form: Form,
    query: Option<&str>,
    viewer: u64,
) -> Result<Found, Problem> {
    let reload = Reload::parse(query.unwrap_or_default())
        .map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {e}.")))?;
    if !state.hls.knows(name, viewer) {
        let elsewhere = || {
            let base = state.door.elsewhere()?;
            Some(format!("{}/{}/streams/{}.m3u8", base.trim_end_matches('/'), name.app(), name.stream_id()))
        };
        state.door.room().map_err(|refusal| Problem::from(refusal).elsewhere(elsewhere()))?;
    }
    Ok(Found::Playlist(state.hls.playlist(&state.hub, name, form, reload, viewer).await?))
}

fn stream_name(state: &State, app: &str, id: &str) -> Result<StreamName, Problem> {
    if !state.apps.contains(app) {
        return Err(Problem::new(Code::AppNotFound, "There is no such app."));
    }
    StreamName::new(app, id).map_err(|e| Problem::new(Code::BadRequest, format!("The stream's name is wrong: {e}.")))
}

const NOTHING_HERE: Problem = Problem::fixed(Code::NotFound, "There is nothing at this address.");

impl From<HlsError> for Problem {
    fn from(e: HlsError) -> Self {
        match e {
            HlsError::NoStream(name) => Self::missing(Missing::Unknown, &name),
            HlsError::Full(name) => Self::missing(Missing::Full, &name),
            HlsError::NotYet => Self::new(Code::NotYet, "The requested media was not ready in time; try again."),
            HlsError::TooFarAhead => {
                Self::new(Code::BadRequest, "_HLS_msn or _HLS_part is too far ahead of the stream.")
            }
            HlsError::NoResource => Self::new(Code::SegmentNotFound, "This segment does not exist or has expired."),
        }
    }
}
