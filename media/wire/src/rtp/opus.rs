//! Opus over RTP: one packet is one payload (RFC 7587 §4.2). The clock is 48 kHz whatever the sound (§4.1).

use super::PacketisedFrame;
use super::packets::Cut;
use crate::Frame;

/// Turns Opus packets into RTP payloads.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpusPacketiser;

impl OpusPacketiser {
    /// Ticks per second.
    pub const CLOCK_HZ: u32 = 48_000;

    /// The payload of one Opus packet; `None` if it is empty or too long to send in one datagram.
    pub fn packetise(self, frame: &Frame) -> Option<PacketisedFrame> {
        let len = frame.payload.len();
        if len == 0 || len > super::PAYLOAD_BUDGET_BYTES {
            return None;
        }
        let whole = Cut { end: len as u32, padding: 0 };
        Some(PacketisedFrame::new(frame.pts, Self::CLOCK_HZ, true, false, frame.payload.clone(), vec![whole]))
    }
}
