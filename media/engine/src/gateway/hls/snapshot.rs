//! Snapshot of a stream's window; each playlist is rendered at most once per snapshot.

use std::sync::OnceLock;

use bytes::Bytes;
use headwater_wire::hls::Window;

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

/// An immutable copy of the window.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) window: Window,
    playlists: [OnceLock<Bytes>; 3],
}

impl Snapshot {
    pub(super) fn new(window: Window) -> Self {
        Self { window, playlists: Default::default() }
    }

    /// The playlist, rendered on first use; `None` before the first complete segment.
    pub(super) fn playlist(&self, kind: PlaylistKind, stream_id: &str) -> Option<Bytes> {
        if !self.window.is_playable() {
            return None;
        }
        let text = self.playlists[kind as usize].get_or_init(|| {
            let text = match kind {
                PlaylistKind::TopLevel => self.window.media_playlist(&format!("{stream_id}/")),
                PlaylistKind::InFolder => self.window.media_playlist(""),
                PlaylistKind::Multivariant => {
                    self.window.multivariant_playlist(&format!("{stream_id}.m3u8")).unwrap_or_default()
                }
            };
            text.into()
        });
        Some(text.clone())
    }
}
