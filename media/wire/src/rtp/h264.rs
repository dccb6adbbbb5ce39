//! H.264 over RTP, packetization-mode 1 (RFC 6184): single NAL units, STAP-A, FU-A.
//!
//! A NAL unit that exceeds the payload budget is divided into fragments of equal size; the last one
//! is padded (RFC 3550 §5.1). Fragments of the other slices of the frame are padded to the same
//! size if they are nearly as long. The whole frame then leaves in one GSO batch, to which one
//! shorter audio packet can be appended. Consecutive small NAL units (SPS, PPS, SEI) share one
//! STAP-A. Parameter sets are inserted before every IDR picture, unless the publisher sends them in
//! band. Access unit delimiters and filler data are removed.

use bytes::{BufMut, Bytes, BytesMut};

use super::packets::PayloadEnd;
use super::{PAYLOAD_BUDGET_BYTES, PacketizedFrame};
use crate::Frame;
use crate::codec::h264::{DecoderConfig, nal_units};

/// Converts H.264 frames to RTP payloads.
#[derive(Debug, Default)]
pub struct H264Packetizer {
    /// The configuration record from which `parameter_sets` was parsed.
    config: Bytes,
    parameter_sets: Vec<Bytes>,
}

impl H264Packetizer {
    /// RTP clock rate, in ticks per second (RFC 6184 §8.1).
    pub const CLOCK_HZ: u32 = 90_000;

    /// Returns the payloads of one frame, or `None` if it contains nothing to send.
    pub fn packetize(&mut self, frame: &Frame) -> Option<PacketizedFrame> {
        let in_band = frame.key && nal_units(&frame.payload).any(|nal| nal_type(&nal) == SPS);
        let mut out = PayloadWriter::new(frame);
        if frame.key && !in_band {
            self.update_parameter_sets(&frame.track.config);
            self.parameter_sets.iter().for_each(|nal| out.push(nal));
        }
        for nal in nal_units(&frame.payload) {
            if !matches!(nal_type(&nal), AUD | END_OF_SEQUENCE | END_OF_STREAM | FILLER) {
                out.push(&nal);
            }
        }
        out.flush_aggregate();
        if out.payload_ends.is_empty() {
            return None;
        }
        Some(PacketizedFrame::new(frame.pts, Self::CLOCK_HZ, frame.key, true, out.buffer.freeze(), out.payload_ends))
    }

    fn update_parameter_sets(&mut self, record: &Bytes) {
        if self.config == *record {
            return;
        }
        self.config = record.clone();
        self.parameter_sets = match DecoderConfig::parse(record) {
            Ok(config) => config.sps.into_iter().chain(config.pps).collect(),
            // A stream with an unreadable record may still carry its parameter sets in band.
            Err(_) => Vec::new(),
        };
    }
}

struct PayloadWriter {
    buffer: BytesMut,
    payload_ends: Vec<PayloadEnd>,
    /// Size of the longest fragments of the frame, without their 2 header bytes.
    max_fragment_bytes: usize,
    /// Small NAL units to be sent in one STAP-A, and the size of that packet in bytes.
    aggregate: Vec<Bytes>,
    aggregate_bytes: usize,
}

impl PayloadWriter {
    fn new(frame: &Frame) -> Self {
        let packets = frame.payload.len() / PAYLOAD_BUDGET_BYTES + 2;
        let big = nal_units(&frame.payload).filter(|nal| nal.len() > PAYLOAD_BUDGET_BYTES);
        Self {
            buffer: BytesMut::with_capacity(frame.payload.len() + 4 * packets + 64),
            payload_ends: Vec::with_capacity(packets),
            max_fragment_bytes: big.map(|nal| fragment_bytes(nal.len() - 1)).max().unwrap_or(0),
            aggregate: Vec::new(),
            aggregate_bytes: 1,
        }
    }

    fn push(&mut self, nal: &Bytes) {
        if nal.is_empty() {
            return;
        }
        if nal.len() > PAYLOAD_BUDGET_BYTES {
            self.flush_aggregate();
            self.push_fragments(nal);
            return;
        }
        if self.aggregate_bytes + 2 + nal.len() > PAYLOAD_BUDGET_BYTES {
            self.flush_aggregate();
        }
        self.aggregate.push(nal.clone());
        self.aggregate_bytes += 2 + nal.len();
    }

    /// Ends the current aggregate: a single NAL unit packet or a STAP-A (RFC 6184 §5.6, §5.7.1).
    fn flush_aggregate(&mut self) {
        match &self.aggregate[..] {
            [] => return,
            [only] => self.buffer.extend_from_slice(only),
            several => {
                // The header has the maximum NRI and the OR of the forbidden bits (RFC 6184 §5.7).
                let importance = several.iter().map(|nal| nal[0] & 0x60).max().unwrap_or(0);
                let forbidden = several.iter().fold(0, |bit, nal| bit | (nal[0] & 0x80));
                self.buffer.put_u8(forbidden | importance | STAP_A);
                for nal in several {
                    // Cannot truncate: `push` keeps the sum within the budget.
                    self.buffer.put_u16(nal.len() as u16);
                    self.buffer.extend_from_slice(nal);
                }
            }
        }
        self.aggregate.clear();
        self.aggregate_bytes = 1;
        self.end_packet(0);
    }

    /// Writes the NAL unit as FU-A packets with fragments of equal size (RFC 6184 §5.8).
    fn push_fragments(&mut self, nal: &Bytes) {
        let body = &nal[1..];
        let size = fragment_bytes(body.len());
        let padded = if self.max_fragment_bytes.saturating_sub(size) <= MAX_PADDING_BYTES {
            self.max_fragment_bytes.max(size)
        } else {
            size
        };
        let last = body.len().div_ceil(size) - 1;
        for (i, piece) in body.chunks(size).enumerate() {
            let start = u8::from(i == 0) << 7;
            let end = u8::from(i == last) << 6;
            self.buffer.put_u8((nal[0] & 0xe0) | FU_A);
            self.buffer.put_u8(start | end | nal_type(nal));
            self.buffer.extend_from_slice(piece);
            self.end_packet(padded - piece.len());
        }
    }

    /// Ends the packet with this much padding. Adds none if the length does not fit into the one
    /// byte that RFC 3550 §5.1 provides.
    fn end_packet(&mut self, padding_bytes: usize) {
        let padding = u8::try_from(padding_bytes).unwrap_or(0);
        if padding > 0 {
            self.buffer.put_bytes(0, usize::from(padding) - 1);
            self.buffer.put_u8(padding);
        }
        self.payload_ends.push(PayloadEnd { end: self.buffer.len() as u32, padding });
    }
}

/// Returns the fragment size for a NAL unit body of this length: the smallest possible number of
/// fragments, of equal size except for the last.
fn fragment_bytes(body_bytes: usize) -> usize {
    let count = body_bytes.div_ceil(PAYLOAD_BUDGET_BYTES - 2).max(1);
    body_bytes.div_ceil(count)
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
/// Maximum padding of a packet of one slice to reach the packet size of another slice.
const MAX_PADDING_BYTES: usize = 64;

#[cfg(test)]
#[path = "h264_test.rs"]
mod tests;
