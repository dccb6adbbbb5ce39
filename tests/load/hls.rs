//! HLS and LL-HLS viewers: they poll a playlist and fetch new media, as players do.
//!
//! Plain viewers request the playlist about once a second. LL-HLS viewers block on it (RFC
//! 8216bis §6.2.5.2) and fetch parts, as hls.js does. Some viewers read the marks in the media;
//! the others only count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::http::Client;
use crate::mark::Mark;
use crate::tally::Tally;

/// Configuration of one viewer.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) server: SocketAddr,
    /// Path of the playlist.
    pub(crate) playlist: String,
    /// True if the viewer reads marks.
    pub(crate) reads_marks: bool,
    /// Delay of its first request.
    pub(crate) delay: Duration,
    pub(crate) tally: Arc<Tally>,
}

impl Viewer {
    /// Plays segments until aborted. Latency is the age of a segment's last frame when
    /// the segment has arrived.
    ///
    /// # Errors
    /// If the server stopped responding or answered with an error.
    pub(crate) async fn watch_segments(self) -> Result<()> {
        tokio::time::sleep(self.delay).await;
        let (mut client, path, text) = self.first().await?;
        let mut next = Playlist::parse(&text).last_segment();
        let mut clock = tokio::time::interval(POLL_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let started = Instant::now();
        let mut joined = false;
        loop {
            clock.tick().await;
            let response = self.fetch(&mut client, &path, true).await?;
            let playlist = Playlist::parse(response.text()?);
            let first_missing = next;
            for (number, uri) in playlist.segments.iter().filter(|(n, _)| *n >= first_missing) {
                let segment = self.fetch(&mut client, &resolve(&path, uri), self.reads_marks).await?;
                if segment.status == 200 {
                    self.read_marks(&segment.body, true);
                    next = number + 1;
                } else {
                    self.tally.add_lost(1);
                }
                if !joined {
                    joined = true;
                    self.tally.record_join_us(started.elapsed().as_micros() as u32);
                }
            }
        }
    }

    /// Plays parts until aborted. Latency is the age of a part's first frame when
    /// the part has arrived.
    ///
    /// # Errors
    /// As [`Viewer::watch_segments`].
    pub(crate) async fn watch_parts(self) -> Result<()> {
        tokio::time::sleep(self.delay).await;
        let started = Instant::now();
        let (mut client, path, text) = self.first().await?;
        let mut seen = Playlist::parse(&text).last_part().context("the playlist has no parts")?;
        let mut joined = false;
        loop {
            let (segment, part) = (seen.0, seen.1 + 1);
            let separator = if path.contains('?') { '&' } else { '?' };
            let blocking_path = format!("{path}{separator}_HLS_msn={segment}&_HLS_part={part}");
            let response = self.fetch(&mut client, &blocking_path, true).await?;
            let playlist = Playlist::parse(response.text()?);
            let previous = seen;
            for (position, uri) in playlist.parts.iter().filter(|(position, _)| *position > previous) {
                let part = self.fetch(&mut client, &resolve(&path, uri), self.reads_marks).await?;
                if part.status == 200 {
                    self.read_marks(&part.body, false);
                } else {
                    self.tally.add_lost(1);
                }
                if !joined {
                    joined = true;
                    self.tally.record_join_us(started.elapsed().as_micros() as u32);
                }
                seen = *position;
            }
        }
    }

    /// Fetches the media playlist and the initialization section, following a multivariant playlist
    /// if there is one.
    async fn first(&self) -> Result<(Client, String, String)> {
        let mut client = Client::new(self.server);
        let mut path = self.playlist.clone();
        let mut text = self.fetch(&mut client, &path, true).await?.text()?.to_owned();
        if text.contains("#EXT-X-STREAM-INF") {
            let variant = text.lines().find(|l| !l.is_empty() && !l.starts_with('#')).context("no variant")?;
            path = resolve(&path, variant);
            text = self.fetch(&mut client, &path, true).await?.text()?.to_owned();
        }
        if let Some(uri) = text.lines().find(|l| l.starts_with("#EXT-X-MAP")).and_then(|l| attribute(l, "URI")) {
            self.fetch(&mut client, &resolve(&path, uri), false).await?;
        }
        Ok((client, path, text))
    }

    async fn fetch(&self, client: &mut Client, path: &str, keep: bool) -> Result<crate::http::Response> {
        let response = client.get(path, keep).await?;
        self.tally.add_bytes(response.bytes);
        self.tally.add_packets(1);
        Ok(response)
    }

    fn read_marks(&self, media: &[u8], newest: bool) {
        if !self.reads_marks {
            return;
        }
        let marks = Mark::all(media);
        marks.iter().for_each(|_| self.tally.add_frame());
        if let Some(mark) = if newest { marks.last() } else { marks.first() } {
            self.tally.record_latency_us(mark.age_us());
        }
    }
}

/// The parts of a media playlist that a viewer uses (RFC 8216bis §4.4).
#[derive(Debug, Default, PartialEq, Eq)]
struct Playlist {
    /// Media sequence number and URI.
    segments: Vec<(u64, String)>,
    /// Media sequence number, part index, URI.
    parts: Vec<((u64, i64), String)>,
    /// Media sequence number of the segment that is not complete yet.
    open: u64,
}

impl Playlist {
    fn parse(text: &str) -> Self {
        let mut playlist = Self::default();
        let (mut number, mut part) = (0, 0);
        for line in text.lines() {
            if let Some(first) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                number = first.trim().parse().unwrap_or(0);
            } else if line.starts_with("#EXT-X-PART:") {
                let uri = attribute(line, "URI").unwrap_or_default().to_owned();
                playlist.parts.push(((number, part), uri));
                part += 1;
            } else if !line.is_empty() && !line.starts_with('#') {
                playlist.segments.push((number, line.trim().to_owned()));
                number += 1;
                part = 0;
            }
        }
        playlist.open = number;
        playlist
    }

    fn last_segment(&self) -> u64 {
        self.segments.last().map_or(0, |(n, _)| *n)
    }

    /// The newest part, or the position before the first part if the open segment has none yet.
    fn last_part(&self) -> Option<(u64, i64)> {
        let newest = self.parts.last()?.0;
        Some(if newest.0 < self.open { (self.open, -1) } else { newest })
    }
}

/// The value of a quoted attribute (RFC 8216 §4.2).
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line.find(&format!("{name}=\""))? + name.len() + 2;
    line[start..].split('"').next()
}

/// Resolves a URI of a playlist to a path on the same server.
fn resolve(base: &str, uri: &str) -> String {
    if uri.starts_with('/') {
        return uri.to_owned();
    }
    let folder = base.split('?').next().and_then(|b| b.rfind('/')).map_or("", |at| &base[..at]);
    format!("{folder}/{uri}")
}

/// Interval of a plain viewer's playlist requests.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_parts_are_numbered_from_the_media_sequence() {
        let text = "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-PART:DURATION=0.2,URI=\"7.0.mp4\"\n#EXTINF:2,\n7.mp4\n\
                    #EXT-X-PART:DURATION=0.2,URI=\"8.0.mp4\",INDEPENDENT=YES\n";
        let playlist = Playlist::parse(text);
        assert_eq!(playlist.segments, [(7, "7.mp4".to_owned())]);
        assert_eq!(playlist.parts, [((7, 0), "7.0.mp4".to_owned()), ((8, 0), "8.0.mp4".to_owned())]);
        assert_eq!(playlist.last_part(), Some((8, 0)));
        assert_eq!(resolve("/live/streams/a.m3u8", "x/8.mp4"), "/live/streams/x/8.mp4");
        assert_eq!(resolve("/live/streams/a.m3u8?session=b/c", "x/8.mp4?sig=1"), "/live/streams/x/8.mp4?sig=1");
    }
}
