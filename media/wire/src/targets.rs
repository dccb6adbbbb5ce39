//! The values that stay constant in the HLS playlists of a stream, from its first playlist to its
//! last one.
//!
//! Players keep the first values that they see: RFC 8216bis §6.2.1 forbids changing them, and
//! Apple's players stop at a changed PART-HOLD-BACK. The values depend on the first GOP, which a
//! node that joins late has not received. They are therefore decided where the stream is published
//! ([`crate::segment::Segmenter`]) and travel with the frames. Must not know playlists or nodes.

use std::num::NonZeroU32;

use crate::MediaTime;

/// The constants of the playlists of one stream generation.
///
/// ```
/// use headwater_wire::MediaTime;
/// use headwater_wire::targets::Targets;
///
/// let ms = MediaTime::from_ms;
/// let mut targets = Targets::new(ms(200));
/// assert_eq!(targets.part, ms(220));
/// // Five packets of HE-AAC at 44.1 kHz last 232 ms, four of them less than 85% of 220 ms.
/// targets.fit_packets(MediaTime::from_ticks(2_048, 44_100));
/// assert_eq!(targets.part, ms(233));
/// assert_eq!(targets.shortest_part(), MediaTime::from_ticks(19_805, 100_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Part Target Duration, whole milliseconds: no part is longer (RFC 8216bis §4.4.3.7).
    pub part: MediaTime,
    /// EXT-X-TARGETDURATION: no segment is longer once rounded to seconds (RFC 8216bis §4.4.3.1).
    /// `None` until the first segment has ended; until then there is no playlist.
    pub segment_secs: Option<NonZeroU32>,
    /// False if the frames last longer than a part: the playlists list no parts. Changes only
    /// together with `segment_secs`.
    pub has_parts: bool,
    /// True until a segment begins without a key frame: EXT-X-INDEPENDENT-SEGMENTS.
    pub independent: bool,
}

impl Targets {
    /// Returns the values at the start of a stream. A part lasts about `part_duration`; its limit
    /// is 10% more, because parts end at frame boundaries.
    pub fn new(part_duration: MediaTime) -> Self {
        let part = MediaTime::from_ms((part_duration.as_ms().saturating_mul(11) / 10).clamp(1, MAX_PART_MS));
        Self { part, segment_secs: None, has_parts: true, independent: true }
    }

    /// Raises the part target for a stream of audio packets of this duration, if no whole number of
    /// packets is within the permitted durations of a part.
    pub fn fit_packets(&mut self, packet: MediaTime) {
        let (part, packet) = (self.part.as_flicks(), packet.as_flicks());
        if packet <= 0 || part / packet * packet >= self.shortest_part().as_flicks() {
            return;
        }
        let fitting = (part / packet + 1).saturating_mul(packet);
        // Whole milliseconds, rounded up.
        let fitting_ms = MediaTime::from_flicks(fitting).as_ms().saturating_add(1);
        self.part = MediaTime::from_ms(fitting_ms.clamp(1, MAX_PART_MS));
    }

    /// Returns the preferred duration of a part.
    pub fn preferred_part(&self) -> MediaTime {
        MediaTime::from_flicks(self.part.as_flicks() / 11 * 10)
    }

    /// Returns the minimum duration of a part that is not the last one of its segment: 85% of the
    /// part target (RFC 8216bis §4.4.4.9).
    pub fn shortest_part(&self) -> MediaTime {
        MediaTime::from_flicks(self.part.as_flicks() / 20 * 17)
    }

    /// Returns the maximum duration of a segment: EXTINF is rounded to the nearest second.
    pub fn longest_segment(&self) -> MediaTime {
        self.segment_secs.map_or(MAX_SEGMENT_DURATION, longest_segment)
    }
}

/// Returns the longest duration that rounds to `secs`.
pub(crate) fn longest_segment(secs: NonZeroU32) -> MediaTime {
    MediaTime::from_ms(i64::from(secs.get()) * 1_000 + 499)
}

/// No segment is longer, whatever is configured and whatever an origin of an earlier version sends.
/// The maximum of EXT-X-TARGETDURATION, and thus of the time for which a playlist request can
/// block.
pub const MAX_SEGMENT_DURATION: MediaTime = MediaTime::from_ms(60_000);
/// No part target is greater: a part is at most one segment.
pub(crate) const MAX_PART_MS: i64 = MAX_SEGMENT_DURATION.as_ms();
