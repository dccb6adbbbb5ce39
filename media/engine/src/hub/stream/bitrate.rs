//! The bitrate of a stream in media time.
//!
//! A plain value: frame sizes go in, bits per second come out. Must not know a clock.

use headwater_wire::MediaTime;

/// Counts the bits in the current and in the last complete second of media time.
#[derive(Debug, Default)]
pub(super) struct Bitrate {
    second: i64,
    running_bits: u64,
    /// Bits in the last complete second.
    pub(super) last_bps: u64,
    /// Greatest decoding time so far.
    pub(super) newest: MediaTime,
}

impl Bitrate {
    /// Counts a frame.
    ///
    /// Audio may be slightly older than the preceding video frame: a packet of a completed second
    /// is counted in the current one.
    pub(super) fn add(&mut self, dts: MediaTime, bytes: usize) {
        let second = dts.as_flicks().div_euclid(MediaTime::HZ);
        if second > self.second {
            self.last_bps = if second == self.second + 1 { self.running_bits } else { 0 };
            self.second = second;
            self.running_bits = 0;
        }
        self.running_bits += 8 * bytes as u64;
        self.newest = self.newest.max(dts);
    }
}
