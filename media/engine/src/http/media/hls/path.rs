//! Parses the paths of HLS requests. Does not know which streams exist.

/// A parsed path of an HLS resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HlsPath<'a> {
    FlatPlaylist { app: &'a str, file: &'a str },
    NestedPlaylist { app: &'a str, id: &'a str, file: &'a str },
    Resource { app: &'a str, id: &'a str, started_at_ms: &'a str, name: &'a str },
}

impl<'a> HlsPath<'a> {
    /// The app.
    pub(crate) fn app(self) -> &'a str {
        match self {
            Self::FlatPlaylist { app, .. } | Self::NestedPlaylist { app, .. } | Self::Resource { app, .. } => app,
        }
    }

    /// Parses a path without percent-encoding; `None` if it is encoded or not an HLS path.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        if path.contains('%') {
            return None;
        }
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
            [Some(file), None, ..] => Some(Self::FlatPlaylist { app, file }),
            [Some(id), Some(file), None, _] => Some(Self::NestedPlaylist { app, id, file }),
            [Some(id), Some(started_at_ms), Some(name), None] => Some(Self::Resource { app, id, started_at_ms, name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hls_paths_are_parsed() {
        let flat = HlsPath::FlatPlaylist { app: "live", file: "a.m3u8" };
        assert_eq!(HlsPath::parse("/live/streams/a.m3u8"), Some(flat));
        let nested = HlsPath::NestedPlaylist { app: "live", id: "a", file: "playlist.m3u8" };
        assert_eq!(HlsPath::parse("/live/streams/a/playlist.m3u8"), Some(nested));
        let resource = HlsPath::Resource { app: "live", id: "a", started_at_ms: "7", name: "8.m4s" };
        assert_eq!(HlsPath::parse("/live/streams/a/7/8.m4s"), Some(resource));
        for other in ["", "/", "/live/streams", "/live/streams/", "/live/streams/a/", "/live/streams//b", "//streams/a"]
        {
            assert_eq!(HlsPath::parse(other), None, "{other}");
        }
        assert_eq!(HlsPath::parse("/live/whep/a"), None);
        assert_eq!(HlsPath::parse("/live/streams/a/7/8.m4s/9"), None);
        assert_eq!(HlsPath::parse("/live/streams/%61.m3u8"), None, "the router decodes it");
    }
}
