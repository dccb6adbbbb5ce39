//! What a stream offers at one moment, with its playlists rendered at most once, however many ask.

use std::sync::OnceLock;

use bytes::Bytes;
use headwater_wire::hls::Window;

/// Which playlist, and from where its addresses are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `ID.m3u8`, beside the folder `ID`.
    Beside,
    /// `ID/playlist.m3u8`, inside it.
    Inside,
    /// `ID_adaptive.m3u8`, which points to `ID.m3u8`.
    Multivariant,
}

/// The window at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) window: Window,
    texts: [OnceLock<Bytes>; 3],
}

impl Snapshot {
    pub(super) fn new(window: Window) -> Self {
        Self { window, texts: Default::default() }
    }

    /// The playlist; `None` while there is no whole segment.
    pub(super) fn text(&self, form: Form, stream_id: &str) -> Option<Bytes> {
        if !self.window.is_playable() {
            return None;
        }
        let text = self.texts[form as usize].get_or_init(|| {
            let text = match form {
                Form::Beside => self.window.media_playlist(&format!("{stream_id}/")),
                Form::Inside => self.window.media_playlist(""),
                Form::Multivariant => {
                    self.window.multivariant_playlist(&format!("{stream_id}.m3u8")).unwrap_or_default()
                }
            };
            text.into()
        });
        Some(text.clone())
    }
}
