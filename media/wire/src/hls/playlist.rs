//! Writes playlists (RFC 8216bis §4).

use std::fmt::Write as _;

use super::date::UnixMs;
use super::window::{SEGMENTS_WITH_PARTS, Segment};
use super::{Resource, Window};
use crate::cmaf::Part;

impl Window {
    /// Returns the media playlist. `prefix` is prepended to the relative URIs, which begin with the
    /// start time of the stream generation; it is empty or `ID/`.
    pub fn media_playlist(&self, prefix: &str) -> String {
        self.media_playlist_with_query(prefix, "")
    }

    /// Like [`Self::media_playlist`], and appends `query` to every URI: a query with its `?`.
    pub fn media_playlist_with_query(&self, prefix: &str, query: &str) -> String {
        let mut out = String::with_capacity(4_096);
        self.write_media_playlist(&UriBase { prefix, started_at_ms: self.settings.started_at_ms, query }, &mut out);
        out
    }

    /// Returns the multivariant playlist with one variant, whose media playlist is at `media_uri`.
    /// Returns `None` before the first finished segment, because codecs and bit rate are unknown.
    pub fn multivariant_playlist(&self, media_uri: &str) -> Option<String> {
        let init = &self.listed().next_back()?.init;
        let (peak, average) = self.bitrate_bps();
        let independent = self.independent_segments();
        let mut out = format!(
            "#EXTM3U\n#EXT-X-VERSION:{VERSION}\n{independent}\
             #EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}"
        );
        if let Some(codecs) = init.codecs() {
            push_fmt(&mut out, format_args!(",CODECS=\"{codecs}\""));
        }
        let size = init.video.as_ref().and_then(|t| t.video).filter(|v| v.width > 0 && v.height > 0);
        if let Some(size) = size {
            push_fmt(&mut out, format_args!(",RESOLUTION={}x{}", size.width, size.height));
        }
        push_fmt(&mut out, format_args!("\n{media_uri}\n"));
        Some(out)
    }

    fn write_media_playlist(&self, uri_base: &UriBase<'_>, out: &mut String) {
        let target = self.target_duration_secs();
        push_fmt(out, format_args!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{target}\n"));
        if !self.ended {
            self.write_server_control(target, out);
        }
        let first = self.listed().next().map(|s| s.number).or(self.open_number()).unwrap_or(0);
        push_fmt(out, format_args!("{}#EXT-X-MEDIA-SEQUENCE:{first}\n", self.independent_segments()));
        let discontinuities = self.discontinuity_sequence();
        if discontinuities > 0 {
            push_fmt(out, format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}\n"));
        }
        let has_parts = self.targets.has_parts && !self.ended;
        let with_parts = self.listed().len().saturating_sub(SEGMENTS_WITH_PARTS);
        let mut map = None;
        for (i, segment) in self.listed().enumerate() {
            uri_base.write_segment_tags(segment, &mut map, out);
            if i >= with_parts && has_parts {
                uri_base.write_parts(segment.number, &segment.parts, out);
            }
            let (secs, uri) = (segment.duration().as_secs_f64(), Resource::Segment { number: segment.number });
            push_fmt(
                out,
                format_args!(
                    "#EXTINF:{secs:.5},\n{}{}/{uri}{}\n",
                    uri_base.prefix, uri_base.started_at_ms, uri_base.query
                ),
            );
        }
        if self.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        }
        if !has_parts {
            return;
        }
        if let Some(open) = self.open.as_ref().filter(|open| !open.parts.is_empty()) {
            uri_base.write_segment_tags(open, &mut map, out);
            uri_base.write_parts(open.number, &open.parts, out);
        }
        if let Some(number) = self.open_number() {
            let part = self.open.as_ref().map_or(0, |s| s.parts.len() as u32);
            let uri = Resource::Part { number, part };
            let UriBase { prefix, started_at_ms, query } = uri_base;
            push_fmt(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{prefix}{started_at_ms}/{uri}{query}\"\n"));
        }
    }

    /// Writes what players must do to reload the playlist, and the part target. All of it is
    /// constant (RFC 8216bis §6.2.1). A player stays three target durations behind the end
    /// (RFC 8216bis §4.4.3.8).
    fn write_server_control(&self, target_secs: u64, out: &mut String) {
        let hold_back_secs = 3 * target_secs;
        if !self.targets.has_parts {
            let control = "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES";
            return push_fmt(out, format_args!("{control},HOLD-BACK={hold_back_secs}.0\n"));
        }
        let part = self.part_target().as_secs_f64();
        let part_hold_back = 3.0 * part;
        push_fmt(
            out,
            format_args!(
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={part_hold_back:.3},\
                 HOLD-BACK={hold_back_secs}.0\n#EXT-X-PART-INF:PART-TARGET={part:.3}\n"
            ),
        );
    }

    /// Returns the tag that lets players start at any segment, unless one of this stream began
    /// without a key frame.
    fn independent_segments(&self) -> &'static str {
        if self.targets.independent { "#EXT-X-INDEPENDENT-SEGMENTS\n" } else { "" }
    }
}

/// The base of the URIs in a media playlist, relative to the playlist: `PREFIX` + `START_TIME` +
/// `/`; and the query that ends them.
struct UriBase<'a> {
    prefix: &'a str,
    started_at_ms: u64,
    query: &'a str,
}

impl UriBase<'_> {
    /// Writes the tags before a segment's parts. `map` is the id of the current initialization
    /// segment.
    fn write_segment_tags(&self, segment: &Segment, map: &mut Option<u32>, out: &mut String) {
        let UriBase { prefix, started_at_ms, query } = self;
        if segment.discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        let id = segment.init.id;
        if map.replace(id) != Some(id) {
            let uri = Resource::Init { id };
            push_fmt(out, format_args!("#EXT-X-MAP:URI=\"{prefix}{started_at_ms}/{uri}{query}\"\n"));
        }
        let started_at_ms = i64::try_from(*started_at_ms).unwrap_or(i64::MAX);
        let date = UnixMs(started_at_ms.saturating_add(segment.start.as_ms()));
        push_fmt(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{date}\n"));
    }

    fn write_parts(&self, number: u64, parts: &[Part], out: &mut String) {
        let UriBase { prefix, started_at_ms, query } = self;
        for p in parts {
            let uri = Resource::Part { number, part: p.index };
            let independent = if p.independent { ",INDEPENDENT=YES" } else { "" };
            let secs = p.duration.as_secs_f64();
            push_fmt(
                out,
                format_args!(
                    "#EXT-X-PART:DURATION={secs:.5},URI=\"{prefix}{started_at_ms}/{uri}{query}\"{independent}\n"
                ),
            );
        }
    }
}

fn push_fmt(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = out.write_fmt(text);
}

/// The lowest version that allows EXT-X-MAP outside I-frame playlists (RFC 8216bis §8). LL-HLS
/// without EXT-X-SKIP needs no higher one, and older players reject versions that they do not know.
const VERSION: u32 = 6;
