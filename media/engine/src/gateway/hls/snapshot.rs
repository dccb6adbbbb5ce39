//! Snapshot of a stream's window; each playlist is rendered at most once per snapshot, and with
//! signed URLs at most once per snapshot and window of the signature.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use headwater_wire::hls::Window;

use crate::access::UrlSignature;

/// Which playlist, and the path that its relative URIs start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaylistKind {
    /// Media playlist `ID.m3u8`, next to the folder `ID`.
    TopLevel,
    /// Media playlist `ID/playlist.m3u8`, in the folder `ID`.
    InFolder,
    /// Multivariant playlist `ID_adaptive.m3u8`, which refers to `ID.m3u8`.
    Multivariant,
}

/// What the URIs of a playlist carry.
#[derive(Debug, Clone, Copy)]
pub enum PlaylistAccess<'a> {
    /// Nothing: everyone may play the stream.
    Open,
    /// The signature of media URLs, the same for all viewers.
    Signed(UrlSignature<'a>),
    /// The play session of one viewer: the playlist is a multivariant one, and its media playlist
    /// has this session.
    Entry(&'a str),
}

/// An immutable copy of the window.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) window: Window,
    playlists: [OnceLock<Bytes>; 3],
    /// The media playlists with signed URLs, by kind, and the window of the signature.
    signed: [Mutex<Option<(u64, Bytes)>>; 2],
}

impl Snapshot {
    pub(super) fn new(window: Window) -> Self {
        Self { window, playlists: Default::default(), signed: Default::default() }
    }

    /// The playlist; `None` before the first complete segment.
    pub(super) fn playlist(&self, kind: PlaylistKind, access: PlaylistAccess<'_>, stream_id: &str) -> Option<Bytes> {
        if !self.window.is_playable() {
            return None;
        }
        Some(match (access, kind) {
            (PlaylistAccess::Open, _) => {
                self.playlists[kind as usize].get_or_init(|| self.render(kind, stream_id, "")).clone()
            }
            (PlaylistAccess::Signed(signature), PlaylistKind::TopLevel | PlaylistKind::InFolder) => {
                self.signed(kind, stream_id, signature)
            }
            (PlaylistAccess::Signed(_), PlaylistKind::Multivariant) => self.render(kind, stream_id, ""),
            (PlaylistAccess::Entry(session), _) => {
                let media = if kind == PlaylistKind::InFolder { "playlist" } else { stream_id };
                self.multivariant(&format!("{media}.m3u8?session={session}"))
            }
        })
    }

    fn signed(&self, kind: PlaylistKind, stream_id: &str, signature: UrlSignature<'_>) -> Bytes {
        let mut newest = self.signed[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some((window, text)) if *window == signature.window() => text.clone(),
            _ => {
                let text = self.render(kind, stream_id, &format!("?{signature}"));
                *newest = Some((signature.window(), text.clone()));
                text
            }
        }
    }

    fn render(&self, kind: PlaylistKind, stream_id: &str, query: &str) -> Bytes {
        match kind {
            PlaylistKind::TopLevel => self.window.media_playlist_with_query(&format!("{stream_id}/"), query).into(),
            PlaylistKind::InFolder => self.window.media_playlist_with_query("", query).into(),
            PlaylistKind::Multivariant => self.multivariant(&format!("{stream_id}.m3u8{query}")),
        }
    }

    fn multivariant(&self, media_uri: &str) -> Bytes {
        self.window.multivariant_playlist(media_uri).unwrap_or_default().into()
    }
}
