//! RTP: frames become equal-sized payloads (RFC 3550, RFC 6184, RFC 7587).
//!
//! ```text
//!   Frame --(packetiser, once per stream)--> Packets --> Ring --(per viewer: 12 header bytes)--> datagrams
//! ```
//!
//! Must not know encryption, sockets or viewers.

mod h264;
mod header;
mod opus;
mod packets;
mod ring;

pub use h264::H264Packetiser;
pub use header::{HEADER_BYTES, Header};
pub use opus::OpusPacketiser;
pub use packets::{PacketisedFrame, Place};
pub use ring::Ring;

/// Bytes of an RTP payload at most: a datagram of 1,200 bytes, which every path carries (RFC 9000 §14 argues the same
/// number), less 12 of header, 16 of the longest SRTP tag and 2 kept free for a retransmission header (RFC 4588 §4).
pub const PAYLOAD_BUDGET_BYTES: usize = 1_200 - HEADER_BYTES - 16 - 2;
