//! Presentation times for RTP that increase with every frame.
//!
//! Without B-frames, frames are presented in the order in which they are decoded. Some encoders
//! change the offset between decoding and presentation now and then, so that two frames have the
//! same presentation time, or the later frame has the earlier one. In RTP, frames with the same
//! timestamp are one frame, and browsers drop a frame that is older than the last one
//! (RFC 6184 §5.1). A plain value of the packetizer; must not know packets.

use headwater_wire::{Frame, MediaTime};

/// The presentation time of the latest frame.
#[derive(Debug, Default)]
pub(super) struct PresentationOrder {
    last: Option<MediaTime>,
}

impl PresentationOrder {
    /// Returns the presentation time of the next frame, in decoding order: its own one, or shortly
    /// after that of the frame before it.
    pub(super) fn time_of(&mut self, frame: &Frame) -> MediaTime {
        let own = frame.pts;
        let time = match self.last {
            Some(last) if own <= last && last - own < MAX_STEP_BACK => last + MIN_STEP,
            _ => own,
        };
        self.last = Some(time);
        time
    }
}

/// A presentation time that steps back further belongs to a new timeline of the publisher.
const MAX_STEP_BACK: MediaTime = MediaTime::from_ms(1_000);
/// A 1,000th of a second: 90 ticks.
const MIN_STEP: MediaTime = MediaTime::from_ms(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use headwater_wire::{Codec, Track};

    use super::*;

    #[test]
    fn presentation_times_increase_except_on_a_new_timeline() {
        let (codec, config) = (Codec::H264, Bytes::new());
        let track = Arc::new(Track { codec, config, codec_string: None, video: None, audio: None });
        let mut order = PresentationOrder::default();
        let mut at = |ms| {
            let pts = MediaTime::from_ms(ms);
            let frame = Frame { track: Arc::clone(&track), dts: pts, pts, key: false, payload: Bytes::new() };
            order.time_of(&frame).as_ms()
        };
        assert_eq!([at(1_000), at(1_033), at(1_033), at(1_032), at(1_066)], [1_000, 1_033, 1_034, 1_035, 1_066]);
        assert_eq!([at(0), at(33)], [0, 33]);
    }
}
