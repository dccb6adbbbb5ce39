//! Parses the ClientHello of a DTLS client for the SRTP profiles that it offers (RFC 6347 §4.3,
//! RFC 5764 §4.1.1).
//!
//! The DTLS endpoint selects the first profile of the client, and browsers list the more expensive
//! one first. The profiles of the endpoint are therefore configured after this parser has read the
//! offered ones. A ClientHello may be fragmented, because post-quantum key shares are long.
//!
//! | bytes | record | then handshake |
//! | --- | --- | --- |
//! | 0 | type 22 | message type 1 |
//! | 1-2, 1-3 | version | length |
//! | 3-10, 4-5 | epoch, sequence | message sequence |
//! | 11-12, 6-8 | length | fragment offset |
//! | 9-11 | | fragment length |

/// Maximum length of a ClientHello.
const MAX_HELLO_BYTES: usize = 8 << 10;
/// Maximum number of datagrams of a ClientHello.
const MAX_DATAGRAMS: usize = 8;

/// `SRTP_AEAD_AES_128_GCM` (RFC 7714 §14.2).
const AES_128_GCM: u16 = 7;

/// A rejected ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientHelloError {
    /// The datagram is not a ClientHello, or a malformed one.
    #[error("not a DTLS client hello")]
    Malformed,
    /// The ClientHello has too many bytes or too many datagrams.
    #[error("the DTLS client hello is too long")]
    TooLong,
}

/// A ClientHello being reassembled.
#[derive(Debug, Default)]
pub struct ClientHello {
    datagrams: Vec<Vec<u8>>,
    body: Vec<u8>,
    /// Number of bytes received without a gap from the start of `body`.
    contiguous_bytes: usize,
}

impl ClientHello {
    /// Adds a datagram. Returns true once the ClientHello is complete.
    ///
    /// # Errors
    /// See [`ClientHelloError`]. The state is reset then.
    pub fn push(&mut self, datagram: &[u8]) -> Result<bool, ClientHelloError> {
        let result = self.try_push(datagram);
        if result.is_err() {
            *self = Self::default();
        }
        result
    }

    fn try_push(&mut self, datagram: &[u8]) -> Result<bool, ClientHelloError> {
        if self.datagrams.len() == MAX_DATAGRAMS {
            return Err(ClientHelloError::TooLong);
        }
        let mut rest = datagram;
        while !rest.is_empty() {
            let (head, tail) = rest.split_first_chunk::<13>().ok_or(ClientHelloError::Malformed)?;
            let len = usize::from(u16::from_be_bytes([head[11], head[12]]));
            if head[0] != 22 || head[1] != 0xfe || head[3..5] != [0, 0] || len > tail.len() {
                return Err(ClientHelloError::Malformed);
            }
            let (record, tail) = tail.split_at(len);
            self.on_fragment(record)?;
            rest = tail;
        }
        self.datagrams.push(datagram.to_vec());
        Ok(!self.body.is_empty() && self.contiguous_bytes == self.body.len())
    }

    fn on_fragment(&mut self, record: &[u8]) -> Result<(), ClientHelloError> {
        let (head, piece) = record.split_first_chunk::<12>().ok_or(ClientHelloError::Malformed)?;
        let u24 = |i: usize| usize::from(head[i]) << 16 | usize::from(head[i + 1]) << 8 | usize::from(head[i + 2]);
        let (len, offset) = (u24(1), u24(6));
        if head[0] != 1 || len == 0 || u24(9) != piece.len() || offset + piece.len() > len {
            return Err(ClientHelloError::Malformed);
        }
        if len > MAX_HELLO_BYTES {
            return Err(ClientHelloError::TooLong);
        }
        if self.body.len() != len {
            self.body = vec![0; len];
            self.contiguous_bytes = 0;
        }
        self.body[offset..offset + piece.len()].copy_from_slice(piece);
        // A fragment that arrives out of order is used when the client retransmits the flight.
        if offset <= self.contiguous_bytes {
            self.contiguous_bytes = self.contiguous_bytes.max(offset + piece.len());
        }
        Ok(())
    }

    /// Returns the received datagrams, for the DTLS endpoint.
    pub fn into_datagrams(self) -> Vec<Vec<u8>> {
        self.datagrams
    }

    /// Returns true if the complete ClientHello offers AES-128-GCM for SRTP.
    pub fn offers_gcm(&self) -> bool {
        srtp_profiles(&self.body)
            .is_some_and(|profiles| profiles.as_chunks::<2>().0.iter().any(|p| u16::from_be_bytes(*p) == AES_128_GCM))
    }
}

/// Returns the profile list of the `use_srtp` extension (type 14) in the body of a ClientHello.
fn srtp_profiles(hello: &[u8]) -> Option<&[u8]> {
    // client_version and random
    let rest = hello.get(34..)?;
    let (_session_id, rest) = read_vector::<1>(rest)?;
    let (_cookie, rest) = read_vector::<1>(rest)?;
    let (_cipher_suites, rest) = read_vector::<2>(rest)?;
    let (_compression_methods, rest) = read_vector::<1>(rest)?;
    let (mut extensions, _) = read_vector::<2>(rest)?;
    loop {
        let (kind, rest) = extensions.split_first_chunk::<2>()?;
        let (data, rest) = read_vector::<2>(rest)?;
        if u16::from_be_bytes(*kind) == 14 {
            return read_vector::<2>(data).map(|(profiles, _)| profiles);
        }
        extensions = rest;
    }
}

/// Splits off a vector with a length prefix of `N` bytes. Returns it with the rest of `bytes`.
fn read_vector<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<N>()?;
    let len = len.iter().fold(0, |n, &b| n << 8 | usize::from(b));
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(profiles: &[u16]) -> Vec<u8> {
        let mut out = vec![0xfe, 0xfd];
        out.extend([7; 32]);
        out.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
        let mut srtp = vec![0, 10, 0, 2, 0, 0, 0, 14, 0, 2 * profiles.len() as u8 + 3, 0, 2 * profiles.len() as u8];
        srtp.extend(profiles.iter().flat_map(|p| p.to_be_bytes()));
        srtp.push(0);
        out.extend((srtp.len() as u16).to_be_bytes());
        out.extend(srtp);
        out
    }

    fn record(body: &[u8], offset: usize, piece: &[u8]) -> Vec<u8> {
        let u24 = |n: usize| [(n >> 16) as u8, (n >> 8) as u8, n as u8];
        let mut out = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        out.extend((piece.len() as u16 + 12).to_be_bytes());
        out.push(1);
        out.extend(u24(body.len()));
        out.extend([0, 0]);
        out.extend(u24(offset));
        out.extend(u24(piece.len()));
        out.extend(piece);
        out
    }

    #[test]
    fn gcm_is_found_at_any_position_in_the_list() {
        for (profiles, gcm) in [(&[1, 7][..], true), (&[7], true), (&[1, 2], false), (&[], false), (&[8], false)] {
            let body = body(profiles);
            let mut hello = ClientHello::default();
            assert_eq!(hello.push(&record(&body, 0, &body)), Ok(true));
            assert_eq!(hello.offers_gcm(), gcm, "{profiles:?}");
            assert_eq!(hello.into_datagrams().len(), 1);
        }
    }

    #[test]
    fn fragmented_hello_is_reassembled() {
        let body = body(&[1, 7]);
        let mut hello = ClientHello::default();
        assert_eq!(hello.push(&record(&body, 0, &body[..40])), Ok(false));
        assert!(!hello.offers_gcm());
        assert_eq!(hello.push(&record(&body, 40, &body[40..])), Ok(true));
        assert!(hello.offers_gcm());
        assert_eq!(hello.into_datagrams().len(), 2);
    }

    #[test]
    fn endless_fragments_are_rejected() {
        let body = body(&[7]);
        let mut hello = ClientHello::default();
        for _ in 0..MAX_DATAGRAMS {
            assert_eq!(hello.push(&record(&body, 0, &body[..5])), Ok(false));
        }
        assert_eq!(hello.push(&record(&body, 0, &body[..5])), Err(ClientHelloError::TooLong));
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        let body = body(&[1, 7]);
        let whole = record(&body, 0, &body);
        for end in 0..whole.len() {
            assert_ne!(ClientHello::default().push(&whole[..end]), Ok(true));
        }
        for i in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[i] ^= 1 << bit;
                let mut hello = ClientHello::default();
                let _ = hello.push(&bytes);
                let _ = hello.offers_gcm();
            }
        }
        for end in 0..body.len() {
            assert!(srtp_profiles(&body[..end]).is_none());
        }
    }
}
