//! Finds the content of an HLS path, or the error response. Does not know how either is sent.

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_wire::hls::{Reload, Resource};

use crate::access::Credentials;
use crate::gateway::hls::{HlsError, PlaylistKind};
use crate::http::error::{Code, Problem};
use crate::http::media::hls::path::HlsPath;
use crate::http::media::hls::request::HlsRequest;
use crate::http::media::stream_name::{check_play, stream_name};
use crate::http::state::AppState;
use crate::hub::FindError;

/// The content of an HLS path.
#[derive(Debug)]
pub(crate) enum HlsContent {
    Playlist(Bytes),
    /// An initialization segment, segment or part, in pieces to send one after another.
    Resource(Vec<Bytes>),
}

impl HlsContent {
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

/// Waits for content that is announced but not complete yet.
pub(crate) async fn find(state: &AppState, request: HlsRequest<'_>) -> Result<HlsContent, Problem> {
    let HlsRequest { path, query, viewer } = request;
    match path {
        HlsPath::FlatPlaylist { app, file } => flat_playlist(state, app, file, query, viewer).await,
        HlsPath::NestedPlaylist { app, id, file } => nested_playlist(state, app, id, file, query, viewer).await,
        HlsPath::Resource { app, id, started_at_ms, name } => resource(state, app, id, started_at_ms, name).await,
    }
}

async fn flat_playlist(
    state: &AppState,
    app: &str,
    file: &str,
    query: Option<&str>,
    viewer: u64,
) -> Result<HlsContent, Problem> {
    let stem = file.strip_suffix(".m3u8").ok_or(NO_SUCH_PATH)?;
    let name = stream_name(state, app, stem)?;
    // A stream may be named `a_adaptive`; if it is not live, return the multivariant playlist of
    // `a`.
    let (name, kind) = match stem.strip_suffix("_adaptive") {
        Some(id) => {
            let plain_name = stream_name(state, app, id)?;
            // In this order, the common case needs no look-up in the cluster.
            if state.hub.stream(&name).is_none()
                && (state.hub.find(&plain_name).await.is_ok() || state.hub.find(&name).await.is_err())
            {
                (plain_name, PlaylistKind::Multivariant)
            } else {
                (name, PlaylistKind::TopLevel)
            }
        }
        None => (name, PlaylistKind::TopLevel),
    };
    playlist(state, &name, kind, query, viewer).await
}

async fn nested_playlist(
    state: &AppState,
    app: &str,
    id: &str,
    file: &str,
    query: Option<&str>,
    viewer: u64,
) -> Result<HlsContent, Problem> {
    if file != "playlist.m3u8" {
        return Err(NO_SUCH_PATH);
    }
    let name = stream_name(state, app, id)?;
    playlist(state, &name, PlaylistKind::InFolder, query, viewer).await
}

async fn resource(
    state: &AppState,
    app: &str,
    id: &str,
    started_at_ms: &str,
    name: &str,
) -> Result<HlsContent, Problem> {
    let stream = stream_name(state, app, id)?;
    let started_at_ms = started_at_ms.parse().map_err(|_| NO_SUCH_PATH)?;
    let resource = Resource::parse(name).ok_or(NO_SUCH_PATH)?;
    Ok(HlsContent::Resource(state.hls.resource(&state.hub, &stream, started_at_ms, resource).await?))
}

async fn playlist(
    state: &AppState,
    name: &StreamName,
    kind: PlaylistKind,
    query: Option<&str>,
    viewer: u64,
) -> Result<HlsContent, Problem> {
    check_play(state, name, &Credentials::from_query(query))?;
    let reload = Reload::parse(query.unwrap_or_default())
        .map_err(|e| Problem::new(Code::BadRequest, format!("The query is wrong: {e}.")))?;
    if !state.hls.has_viewer(name, viewer) {
        let admitted = state.admission.check_capacity();
        admitted.map_err(|error| Problem::from(error).with_alternative(alternative_url(state, name)))?;
    }
    let text = state.hls.playlist(&state.hub, name, kind, reload, viewer).await.map_err(|error| {
        // Another node may have the stream already.
        let alternative = match error {
            HlsError::NotPublished(_) | HlsError::Unavailable { .. } => alternative_url(state, name),
            HlsError::NotYet | HlsError::TooFarAhead | HlsError::NoResource => None,
        };
        Problem::from(error).with_alternative(alternative)
    })?;
    Ok(HlsContent::Playlist(text))
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
            let problem = find(&node.state, HlsRequest { path, query: None, viewer: 1 }).await.unwrap_err();
            assert_eq!(problem.code(), code);
            assert_eq!(problem.alternative_url(), Some("https://b.example/live/streams/a.m3u8"));
        }
    }
}
