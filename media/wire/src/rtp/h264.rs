//! H.264 over RTP, packetization-mode 1 (RFC 6184): single NAL units, STAP-A, FU-A.
//!
//! A big NAL unit is cut into pieces of equal size (only the last may be shorter), so that a whole picture leaves in one
//! segmented send. Small ones that follow each other (SPS, PPS, SEI) share one STAP-A. Before every IDR picture the
//! parameter sets are put in, unless the publisher sends them in band. Access unit delimiters and filler are left out.

use bytes::{BufMut, Bytes, BytesMut};

use super::{PAYLOAD_BUDGET_BYTES, PacketisedFrame};
use crate::Frame;
use crate::codec::h264::{DecoderConfig, nal_units};

/// Turns H.264 frames into RTP payloads.
#[derive(Debug, Default)]
pub struct H264Packetiser {
    /// The configuration record the parameter sets below were read from.
    config: Bytes,
    parameter_sets: Vec<Bytes>,
}

impl H264Packetiser {
    /// Ticks per second.
    pub const CLOCK_HZ: u32 = 90_000;

    /// The payloads of one picture; `None` if it holds nothing to send.
    pub fn packetise(&mut self, frame: &Frame) -> Option<PacketisedFrame> {
        let in_band = frame.key && nal_units(&frame.payload).any(|nal| nal_type(&nal) == SPS);
        let mut out = Writer::new(frame.payload.len());
        if frame.key && !in_band {
            self.learn(&frame.track.config);
            self.parameter_sets.iter().for_each(|nal| out.push(nal));
        }
        for nal in nal_units(&frame.payload) {
            if !matches!(nal_type(&nal), AUD | END_OF_SEQUENCE | END_OF_STREAM | FILLER) {
                out.push(&nal);
            }
        }
        out.flush_small();
        if out.ends.is_empty() {
            return None;
        }
        Some(PacketisedFrame::new(frame.pts, Self::CLOCK_HZ, frame.key, true, out.buffer.freeze(), out.ends))
    }

    fn learn(&mut self, record: &Bytes) {
        if self.config == *record {
            return;
        }
        self.config = record.clone();
        self.parameter_sets = match DecoderConfig::parse(record) {
            Ok(config) => config.sps.into_iter().chain(config.pps).collect(),
            // A stream whose record cannot be read may still carry its parameter sets in band.
            Err(_) => Vec::new(),
        };
    }
}

struct Writer {
    buffer: BytesMut,
    ends: Vec<u32>,
    /// Small NAL units that wait to share a packet.
    small: Vec<Bytes>,
    small_bytes: usize,
}

impl Writer {
    fn new(payload_bytes: usize) -> Self {
        let packets = payload_bytes / PAYLOAD_BUDGET_BYTES + 2;
        Self {
            buffer: BytesMut::with_capacity(payload_bytes + 2 * packets + 64),
            ends: Vec::with_capacity(packets),
            small: Vec::new(),
            small_bytes: 1,
        }
    }

    fn push(&mut self, nal: &Bytes) {
        if nal.is_empty() {
            return;
        }
        if nal.len() > PAYLOAD_BUDGET_BYTES {
            self.flush_small();
            self.fragment(nal);
            return;
        }
        if self.small_bytes + 2 + nal.len() > PAYLOAD_BUDGET_BYTES {
            self.flush_small();
        }
        self.small.push(nal.clone());
        self.small_bytes += 2 + nal.len();
    }

    /// RFC 6184 §5.6 and §5.7.1.
    fn flush_small(&mut self) {
        match &self.small[..] {
            [] => return,
            [only] => self.buffer.extend_from_slice(only),
            several => {
                // The header bears the highest importance and the forbidden bit of any of them (§5.3).
                let importance = several.iter().map(|nal| nal[0] & 0x60).max().unwrap_or(0);
                let forbidden = several.iter().fold(0, |bit, nal| bit | (nal[0] & 0x80));
                self.buffer.put_u8(forbidden | importance | STAP_A);
                for nal in several {
                    // Fits: `push` keeps the sum below the budget.
                    self.buffer.put_u16(nal.len() as u16);
                    self.buffer.extend_from_slice(nal);
                }
            }
        }
        self.small.clear();
        self.small_bytes = 1;
        self.end_packet();
    }

    /// RFC 6184 §5.8, in pieces of equal size.
    fn fragment(&mut self, nal: &Bytes) {
        let body = &nal[1..];
        let count = body.len().div_ceil(PAYLOAD_BUDGET_BYTES - 2);
        let size = body.len().div_ceil(count);
        let last = body.len().div_ceil(size) - 1;
        for (i, piece) in body.chunks(size).enumerate() {
            let start = u8::from(i == 0) << 7;
            let end = u8::from(i == last) << 6;
            self.buffer.put_u8((nal[0] & 0xe0) | FU_A);
            self.buffer.put_u8(start | end | nal_type(nal));
            self.buffer.extend_from_slice(piece);
            self.end_packet();
        }
    }

    fn end_packet(&mut self) {
        self.ends.push(self.buffer.len() as u32);
    }
}

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| b & 31)
}

const SPS: u8 = 7;
const AUD: u8 = 9;
const END_OF_SEQUENCE: u8 = 10;
const END_OF_STREAM: u8 = 11;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[cfg(test)]
#[path = "h264_test.rs"]
mod tests;
