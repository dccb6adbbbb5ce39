//! The fixed RTP header (RFC 3550 §5.1), without contributing sources or extensions.
//!
//! | byte | field |
//! | --- | --- |
//! | 0 | version 2, padding bit 0x20, no extension, no CSRC = 0x80 or 0xa0 |
//! | 1 | marker bit, 7 bits payload type |
//! | 2-3 | sequence number |
//! | 4-7 | timestamp |
//! | 8-11 | SSRC |

/// Length of the header.
pub const HEADER_BYTES: usize = 12;

/// The variable fields of the fixed RTP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// True if the payload ends in padding, whose last byte is its length.
    pub padded: bool,
    /// True for the last packet of a video frame.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// Sequence number, modulo 2^16.
    pub sequence_number: u16,
    /// In ticks of the codec's clock, modulo 2^32.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
}

impl Header {
    /// Returns the encoded header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = 0x80 | (u8::from(self.padded) << 5);
        out[1] = (u8::from(self.marker) << 7) | (self.payload_type & 0x7f);
        out[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        out
    }

    /// Parses a header and returns it with the payload, padding included. Returns `None` if the
    /// packet is truncated, has another version, or has extensions or contributing sources.
    pub fn parse(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (head, payload) = packet.split_first_chunk::<HEADER_BYTES>()?;
        if head[0] & !0x20 != 0x80 {
            return None;
        }
        let header = Self {
            padded: head[0] & 0x20 != 0,
            marker: head[1] & 0x80 != 0,
            payload_type: head[1] & 0x7f,
            sequence_number: u16::from_be_bytes([head[2], head[3]]),
            timestamp: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            ssrc: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        };
        Some((header, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let header = Header {
            padded: true,
            marker: true,
            payload_type: 96,
            sequence_number: 65_535,
            timestamp: 7,
            ssrc: 0xdead_beef,
        };
        let mut packet = header.encode().to_vec();
        assert_eq!(packet[..4], [0xa0, 0xe0, 0xff, 0xff]);
        packet.push(9);
        assert_eq!(Header::parse(&packet), Some((header, &[9][..])));
        for end in 0..HEADER_BYTES {
            assert_eq!(Header::parse(&packet[..end]), None);
        }
    }
}
