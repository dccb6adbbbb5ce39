//! Finds the content of an HLS path, or the error response. Does not know how either is sent.
//!
//! Of a stream that is not open, a request with a token (in the query, or as a bearer token) gets
//! an entry playlist: a multivariant one whose media playlist carries a play session. Reloads of
//! that carry the session, and get URLs that are signed for all viewers.

use std::fmt;

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_api::documents::Grant;
use headwater_wire::hls::{Reload, Resource};

use crate::access::{AccessRequest, UrlAccess};
use crate::gateway::hls::{HlsError, PlaylistAccess, PlaylistKind};
use crate::http::error::{Code, Problem};
use crate::http::media::authorize::{authorize_play, check_redeemable, log_refusal, redeem};
use crate::http::media::hls::path::HlsPath;
use crate::http::media::hls::request::HlsRequest;
use crate::http::media::stream_name::stream_name;
use crate::http::state::AppState;
use crate::hub::FindError;

/// The content of an HLS path.
#[derive(Debug)]
pub(crate) struct HlsContent {
    body: HlsBody,
    cache: CacheControl,
}

#[derive(Debug)]
pub(crate) enum HlsBody {
    Playlist(Bytes),
    /// An initialization segment, segment or part, in pieces to send one after another.
    Resource(Vec<Bytes>),
}

/// Value of the header field `Cache-Control` (RFC 9111 §5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheControl {
    /// A CDN that caches for a second protects the origin; blocking reloads have a new URL for
    /// every part.
    OpenPlaylist,
    /// The URL contains the stream's start time and a sequence number, so it is never reused.
    OpenResource,
    /// The playlist is for one viewer.
    Private,
    /// The URL is the same for all viewers, until its signature expires after this number of
    /// seconds.
    Signed(u64),
}

impl fmt::Display for CacheControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenPlaylist => f.write_str("public, max-age=1"),
            Self::OpenResource => f.write_str("public, max-age=3600, immutable"),
            Self::Private => f.write_str("private, no-store"),
            Self::Signed(max_age_s) => write!(f, "public, max-age={max_age_s}, immutable"),
        }
    }
}

impl HlsContent {
    pub(crate) fn content_type(&self) -> &'static str {
        match self.body {
            HlsBody::Playlist(_) => "application/vnd.apple.mpegurl",
            HlsBody::Resource(_) => "video/mp4",
        }
    }

    pub(crate) fn cache_control(&self) -> CacheControl {
        self.cache
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        match &self.body {
            HlsBody::Playlist(text) => std::slice::from_ref(text),
            HlsBody::Resource(pieces) => pieces,
        }
    }

    pub(crate) fn into_body(self) -> HlsBody {
        self.body
    }
}

/// Waits for content that is announced but not complete yet.
pub(crate) async fn find(state: &AppState, request: HlsRequest<'_>) -> Result<HlsContent, Problem> {
    match request.path {
        HlsPath::FlatPlaylist { app, file } => flat_playlist(state, app, file, request).await,
        HlsPath::NestedPlaylist { app, id, file } => nested_playlist(state, app, id, file, request).await,
        HlsPath::Resource { app, id, started_at_ms, name } => {
            resource(state, app, id, started_at_ms, name, request).await
        }
    }
}

async fn flat_playlist(
    state: &AppState,
    app: &str,
    file: &str,
    request: HlsRequest<'_>,
) -> Result<HlsContent, Problem> {
    let stem = file.strip_suffix(".m3u8").ok_or(NO_SUCH_PATH)?;
    let name = stream_name(state, app, stem)?;
    // A stream may be named `a_adaptive`; if it is not live, return the multivariant playlist of
    // `a`.
    let (name, kind) = match stem.strip_suffix("_adaptive") {
        Some(id) => {
            let plain_name = stream_name(state, app, id)?;
            if is_multivariant(state, &plain_name, &name, request).await {
                (plain_name, PlaylistKind::Multivariant)
            } else {
                (name, PlaylistKind::TopLevel)
            }
        }
        None => (name, PlaylistKind::TopLevel),
    };
    playlist(state, &name, kind, request).await
}

/// True unless the stream `name` is meant, whose own name ends like that of a multivariant
/// playlist. Looks streams up only for a client that may play them: an edge requests them from
/// their origin.
async fn is_multivariant(
    state: &AppState,
    plain_name: &StreamName,
    name: &StreamName,
    request: HlsRequest<'_>,
) -> bool {
    // In this order, the common case needs no look-up in the cluster.
    if state.hub.stream(name).is_some() {
        return false;
    }
    let (credentials, client) = (request.credentials(), request.client);
    let request = AccessRequest { action: Grant::Play, stream: plain_name, credentials, client };
    if !state.access.would_admit(&request).await {
        return false;
    }
    if state.hub.find(plain_name).await.is_ok() {
        return true;
    }
    let request = AccessRequest { stream: name, ..request };
    !state.access.would_admit(&request).await || state.hub.find(name).await.is_err()
}

async fn nested_playlist(
    state: &AppState,
    app: &str,
    id: &str,
    file: &str,
    request: HlsRequest<'_>,
) -> Result<HlsContent, Problem> {
    if file != "playlist.m3u8" {
        return Err(NO_SUCH_PATH);
    }
    let name = stream_name(state, app, id)?;
    playlist(state, &name, PlaylistKind::InFolder, request).await
}

async fn resource(
    state: &AppState,
    app: &str,
    id: &str,
    started_at_ms: &str,
    name: &str,
    request: HlsRequest<'_>,
) -> Result<HlsContent, Problem> {
    let stream = stream_name(state, app, id)?;
    let started_at_ms = started_at_ms.parse().map_err(|_| NO_SUCH_PATH)?;
    let resource = Resource::parse(name).ok_or(NO_SUCH_PATH)?;
    let access = state.access.check_url(&stream, request.query);
    let cache = match access.inspect_err(|e| log_refusal(&stream, request.client, *e))? {
        UrlAccess::Open => CacheControl::OpenResource,
        UrlAccess::Signed { valid_for_s } => CacheControl::Signed(valid_for_s),
    };
    let pieces = state.hls.resource(&state.hub, &stream, started_at_ms, resource).await?;
    Ok(HlsContent { body: HlsBody::Resource(pieces), cache })
}

async fn playlist(
    state: &AppState,
    name: &StreamName,
    kind: PlaylistKind,
    request: HlsRequest<'_>,
) -> Result<HlsContent, Problem> {
    let HlsRequest { client, is_head, .. } = request;
    let mut grounds = authorize_play(state, name, request.credentials(), client).await?;
    if grounds.needs_redemption() {
        if is_head {
            // Players ask with HEAD whether there is a stream, and then present the same token.
            check_redeemable(state, &grounds).await?;
            let text = playable(state, name, kind, PlaylistAccess::Entry(""), request).await?;
            return Ok(HlsContent { body: HlsBody::Playlist(text), cache: CacheControl::Private });
        }
        // A one-time token is not used up before there is something to play.
        playable(state, name, kind, PlaylistAccess::Entry(""), request).await?;
        redeem(state, &mut grounds).await?;
    }
    let session;
    let access = if grounds.is_open() {
        PlaylistAccess::Open
    } else if grounds.is_session() && kind != PlaylistKind::Multivariant {
        PlaylistAccess::Signed(state.access.sign_urls(name))
    } else {
        session = state.access.open_session(&grounds);
        PlaylistAccess::Entry(&session)
    };
    let text = playable(state, name, kind, access, request).await?;
    let is_open = matches!(access, PlaylistAccess::Open);
    let cache = if is_open { CacheControl::OpenPlaylist } else { CacheControl::Private };
    Ok(HlsContent { body: HlsBody::Playlist(text), cache })
}

/// The text of a playlist, once there is a complete segment.
async fn playable(
    state: &AppState,
    name: &StreamName,
    kind: PlaylistKind,
    access: PlaylistAccess<'_>,
    request: HlsRequest<'_>,
) -> Result<Bytes, Problem> {
    let HlsRequest { query, viewer, .. } = request;
    let reload = Reload::parse(query.unwrap_or_default())
        .map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {e}.")))?;
    if !state.hls.has_viewer(name, viewer) {
        let admitted = state.admission.check_capacity();
        admitted.map_err(|error| Problem::from(error).with_alternative(alternative_url(state, name)))?;
    }
    state.hls.playlist(&state.hub, name, kind, access, reload, viewer).await.map_err(|error| {
        // Another node may have the stream already.
        let alternative = match error {
            HlsError::NotPublished(_) | HlsError::Unavailable { .. } => alternative_url(state, name),
            HlsError::NotYet | HlsError::TooFarAhead | HlsError::NoResource => None,
        };
        Problem::from(error).with_alternative(alternative)
    })
}

/// URL of the playlist on another node with capacity.
fn alternative_url(state: &AppState, name: &StreamName) -> Option<String> {
    let base = state.admission.alternative_url()?;
    Some(format!("{}/{}/streams/{}.m3u8", base.trim_end_matches('/'), name.app(), name.stream_id()))
}

const NO_SUCH_PATH: Problem = Problem::fixed(Code::NotFound, "There is nothing at this address.");

impl From<HlsError> for Problem {
    fn from(e: HlsError) -> Self {
        match e {
            HlsError::NotPublished(name) => Self::stream_unavailable(FindError::NotPublished, &name),
            HlsError::Unavailable { name, error } => Self::stream_unavailable(error, &name),
            HlsError::NotYet => Self::new(Code::NotYet, "The requested media was not ready in time; try again."),
            HlsError::TooFarAhead => {
                Self::new(Code::BadRequest, "_HLS_msn or _HLS_part is too far ahead of the stream.")
            }
            HlsError::NoResource => Self::new(Code::SegmentNotFound, "This segment does not exist or has expired."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use headwater_api::control::NodeHealth;

    use super::*;
    use crate::http::test_node::TestNode;
    use crate::hub::{FetchFuture, RelayedStreams, RemoteStreams};

    /// A cluster in which every fetch of a stream fails with the same error.
    #[derive(Debug)]
    struct FailingCluster(FindError);

    impl RemoteStreams for FailingCluster {
        fn fetch(&self, _: &RelayedStreams, _: &StreamName) -> FetchFuture {
            let error = self.0;
            Box::pin(async move { Err(error) })
        }
    }

    #[tokio::test]
    async fn playlist_of_an_unavailable_stream_names_another_node() {
        for (error, code) in [
            (FindError::AtCapacity, Code::Full),
            (FindError::TooManySearches, Code::Full),
            (FindError::Unreachable, Code::OriginUnreachable),
            (FindError::RegistryUnreachable, Code::RegistryUnreachable),
            (FindError::NotPublished, Code::StreamNotFound),
        ] {
            let node = TestNode::new();
            node.hub.join_cluster(Box::new(FailingCluster(error)), None);
            node.node_health
                .apply(NodeHealth { alternative_url: Some("https://b.example/".to_owned()), ..NodeHealth::default() });
            let path = HlsPath::NestedPlaylist { app: "live", id: "a", file: "playlist.m3u8" };
            let client = Ipv4Addr::LOCALHOST.into();
            let request = HlsRequest { path, query: None, authorization: None, viewer: 1, client, is_head: false };
            let problem = find(&node.state, request).await.unwrap_err();
            assert_eq!(problem.code(), code);
            assert_eq!(problem.alternative_url(), Some("https://b.example/live/streams/a.m3u8"));
        }
    }
}
