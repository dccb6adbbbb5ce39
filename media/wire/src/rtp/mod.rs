//! RTP: converts frames to payloads of equal size (RFC 3550, RFC 6184, RFC 7587).
//!
//! ```text
//!   Frame --(packetizer, once per stream)--> PacketizedFrame --> Ring
//!         --(per viewer: 12 header bytes)--> datagrams
//! ```
//!
//! Must not know encryption, sockets or viewers.

mod h264;
mod header;
mod opus;
mod packets;
mod ring;

pub use h264::H264Packetizer;
pub use header::{HEADER_BYTES, Header};
pub use opus::OpusPacketizer;
pub use packets::{PacketizedFrame, RingCursor};
pub use ring::Ring;

/// Maximum length of an RTP payload: a datagram of 1,200 bytes, which every network path carries
/// (RFC 9000 §14 has the same number), less 12 bytes of header, 16 bytes of the longest SRTP tag,
/// and 2 bytes reserved for a retransmission header (RFC 4588 §4).
pub const PAYLOAD_BUDGET_BYTES: usize = 1_200 - HEADER_BYTES - 16 - 2;
