//! The server side of the RTMP handshake (RTMP 1.0 §5.2), in the simple and the digest form.

use rml_rtmp::handshake::{Handshake as Inner, HandshakeProcessResult, PeerType};

/// Receives C0, C1 and C2, and replies with S0, S1 and S2.
pub struct Handshake(Inner);

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handshake")
    }
}

/// The peer does not use RTMP version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the first bytes are not an RTMP handshake")]
pub struct NotRtmp;

/// The progress of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    InProgress,
    /// The handshake is complete; these bytes are the first of the chunk stream.
    Done(Vec<u8>),
}

impl Default for Handshake {
    fn default() -> Self {
        Self(Inner::new(PeerType::Server))
    }
}

impl Handshake {
    /// Processes received bytes and appends the bytes to send to `reply`.
    ///
    /// # Errors
    /// If the peer does not use RTMP.
    pub fn on_bytes(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> Result<Progress, NotRtmp> {
        match self.0.process_bytes(bytes).map_err(|_| NotRtmp)? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                reply.extend(response_bytes);
                Ok(Progress::InProgress)
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                reply.extend(response_bytes);
                Ok(Progress::Done(remaining_bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_with_or_without_digest_is_accepted_for_every_read_size() {
        for digest in [true, false] {
            for piece in [1, 1_000, 4_000] {
                let mut client = Inner::new(PeerType::Client);
                let mut hello = client.generate_outbound_p0_and_p1().unwrap();
                if !digest {
                    hello = vec![7; 1537];
                    hello[0] = 3;
                }
                let (mut server, mut reply) = (Handshake::default(), Vec::new());
                for bytes in hello.chunks(piece) {
                    assert_eq!(server.on_bytes(bytes, &mut reply), Ok(Progress::InProgress));
                }
                assert_eq!(reply.len(), 1 + 2 * 1536);
                let end = [&reply[1..1537], b"rest"].concat();
                let (last, before) = end.split_last().unwrap();
                let mut done = Vec::new();
                for bytes in before[..1535].chunks(piece) {
                    server.on_bytes(bytes, &mut reply).unwrap();
                }
                if let Progress::Done(rest) =
                    server.on_bytes(&[&before[1535..], &[*last]].concat(), &mut reply).unwrap()
                {
                    done = rest;
                }
                assert_eq!(done, b"rest");
            }
        }
    }

    #[test]
    fn other_protocol_is_rejected_by_its_first_byte() {
        assert_eq!(Handshake::default().on_bytes(b"GET / HTTP/1.1\r\n", &mut Vec::new()), Err(NotRtmp));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let mut client = Inner::new(PeerType::Client);
        let mut golden = client.generate_outbound_p0_and_p1().unwrap();
        golden.resize(1 + 2 * 1536 + 10, 9);
        let serve = |bytes: &[u8]| drop(Handshake::default().on_bytes(bytes, &mut Vec::new()));
        for end in 0..golden.len() {
            serve(&golden[..end]);
        }
        for at in 0..golden.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = golden.clone();
                bytes[at] ^= flip;
                serve(&bytes);
            }
        }
    }
}
