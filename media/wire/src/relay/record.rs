//! Records encrypted with AES-128-GCM. Each record has an implicit number, so that records cannot
//! be dropped, repeated or reordered undetected.
//!
//! | bytes | content |
//! | --- | --- |
//! | 4 | length of the rest, big endian |
//! | n | messages, encrypted |
//! | 16 | tag; the length is authenticated with it |
//!
//! The nonce is the nonce base of the direction XOR the record number, as in RFC 8446 §5.3.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::features::Features;

/// Maximum length of a record, including its tag. The limits of all ingest protocols keep frames
/// below this length.
pub const MAX_RECORD_BYTES: usize = (16 << 20) + 4_096;

const HEADER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// Minimum capacity reserved for a read.
const READ_BYTES: usize = 16 << 10;

/// A malformed or forged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The length is outside the allowed range.
    #[error("a record of {bytes} bytes; {TAG_BYTES} to {MAX_RECORD_BYTES} are allowed")]
    InvalidLength {
        /// Length in the header.
        bytes: usize,
    },
    /// The peer did not encrypt this record, or not as the next one.
    #[error("record {number} is not authentic")]
    NotAuthentic {
        /// Record number on this connection, from 0.
        number: u64,
    },
}

/// The two directions of one connection.
#[derive(Debug)]
pub struct Channel {
    /// Encrypts the records that this end sends.
    pub sealer: Sealer,
    /// Decrypts the records that this end receives.
    pub opener: Opener,
    /// The features that the peer has stated in its hello.
    pub peer_features: Features,
}

impl Channel {
    pub(super) fn new(
        send_key: &[u8; 16 + NONCE_LEN],
        receive_key: &[u8; 16 + NONCE_LEN],
        peer_features: Features,
    ) -> Self {
        Self {
            sealer: Sealer(RecordKey::new(send_key)),
            opener: Opener { key: RecordKey::new(receive_key), buffer: BytesMut::new() },
            peer_features,
        }
    }
}

struct RecordKey {
    key: LessSafeKey,
    nonce_base: [u8; NONCE_LEN],
    number: u64,
}

impl RecordKey {
    fn new(material: &[u8; 16 + NONCE_LEN]) -> Self {
        let (key, iv) = material.split_at(16);
        let key = UnboundKey::new(&AES_128_GCM, key).expect("16 bytes are a key of AES-128");
        let mut nonce_base = [0; NONCE_LEN];
        nonce_base.copy_from_slice(iv);
        Self { key: LessSafeKey::new(key), nonce_base, number: 0 }
    }

    /// Returns the nonce of the next record. The 64-bit numbers never repeat in practice: at one
    /// record per nanosecond they last 584 years.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.nonce_base;
        for (byte, of_number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= of_number;
        }
        self.number = self.number.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts the records of one direction.
pub struct Sealer(RecordKey);

impl Sealer {
    /// Appends a record to `out`. `write` appends its content, at most [`MAX_RECORD_BYTES`] less
    /// the 16 bytes of the tag.
    pub fn seal_record(&mut self, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        write(out);
        let head = ((out.len() - begin - HEADER_BYTES + TAG_BYTES) as u32).to_be_bytes();
        out[begin..begin + HEADER_BYTES].copy_from_slice(&head);
        let nonce = self.0.next_nonce();
        let tag = self
            .0
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(head), &mut out[begin + HEADER_BYTES..])
            .expect("a record is far below the limit of AES-GCM, 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }
}

/// Decrypts the records of one direction.
pub struct Opener {
    key: RecordKey,
    buffer: BytesMut,
}

impl Opener {
    /// Returns the buffer to which the caller appends received bytes. It has capacity for the rest
    /// of the current record.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let missing_bytes = self.missing_bytes().unwrap_or(0);
        if self.buffer.capacity() - self.buffer.len() < missing_bytes.clamp(1, READ_BYTES) {
            self.buffer.reserve(missing_bytes.max(READ_BYTES));
        }
        &mut self.buffer
    }

    /// Returns the number of bytes that the current record still needs, up to the limit.
    fn missing_bytes(&self) -> Option<usize> {
        let head = self.buffer.first_chunk::<HEADER_BYTES>()?;
        let whole = HEADER_BYTES + (u32::from_be_bytes(*head) as usize).min(MAX_RECORD_BYTES);
        Some(whole.saturating_sub(self.buffer.len()))
    }

    /// Returns the content of the next record, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// See [`RecordError`]. The connection must then be closed.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>().copied() else { return Ok(None) };
        let bytes = u32::from_be_bytes(head) as usize;
        if !(TAG_BYTES..=MAX_RECORD_BYTES).contains(&bytes) {
            return Err(RecordError::InvalidLength { bytes });
        }
        if self.buffer.len() < HEADER_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let mut record = self.buffer.split_to(bytes);
        let number = self.key.number;
        let nonce = self.key.next_nonce();
        let opened = self.key.key.open_in_place(nonce, Aad::from(head), &mut record);
        let plain = opened.map_err(|_| RecordError::NotAuthentic { number })?.len();
        record.truncate(plain);
        Ok(Some(record.freeze()))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("number", &self.0.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("number", &self.key.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        let ends =
            [(1, 2), (2, 1)].map(|(send, receive)| Channel::new(&[send; 28], &[receive; 28], Features::default()));
        let [a, b] = ends;
        (a.sealer, b.opener)
    }

    #[test]
    fn records_round_trip_regardless_of_read_sizes() {
        let (mut seal, mut open) = pair();
        let mut wire = BytesMut::new();
        for n in 0..3_u8 {
            seal.seal_record(&mut wire, |out| out.extend_from_slice(&vec![n; 1_000 * usize::from(n)]));
        }
        let mut got = Vec::new();
        for byte in wire {
            open.buffer().extend_from_slice(&[byte]);
            got.extend(open.next_record().unwrap().map(|r| (r.len(), r.first().copied())));
        }
        assert_eq!(got, [(0, None), (1_000, Some(1)), (2_000, Some(2))]);
    }

    #[test]
    fn changed_repeated_or_reordered_record_is_rejected() {
        let mut records = Vec::new();
        let (mut seal, _) = pair();
        for n in 0..2_u8 {
            let mut wire = BytesMut::new();
            seal.seal_record(&mut wire, |out| out.extend_from_slice(&[n; 10]));
            records.push(wire);
        }
        let check = |bytes: &[&[u8]]| {
            let (_, mut open) = pair();
            bytes.iter().for_each(|b| open.buffer().extend_from_slice(b));
            loop {
                match open.next_record() {
                    Ok(Some(_)) => {}
                    end => return end,
                }
            }
        };
        assert_eq!(check(&[&records[0], &records[1]]), Ok(None));
        assert_eq!(check(&[&records[0], &records[0]]), Err(RecordError::NotAuthentic { number: 1 }));
        assert_eq!(check(&[&records[1]]), Err(RecordError::NotAuthentic { number: 0 }));
        for byte in 4..records[0].len() {
            let mut changed = records[0].to_vec();
            changed[byte] ^= 0x10;
            assert_eq!(check(&[&changed]), Err(RecordError::NotAuthentic { number: 0 }), "byte {byte}");
        }
    }

    #[test]
    fn length_beyond_the_limit_is_rejected_before_memory_is_reserved() {
        let (_, mut open) = pair();
        open.buffer().extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(open.buffer().capacity() <= HEADER_BYTES + 2 * MAX_RECORD_BYTES);
        assert_eq!(open.next_record(), Err(RecordError::InvalidLength { bytes: u32::MAX as usize }));
        let (_, mut open) = pair();
        open.buffer().extend_from_slice(&[0, 0, 0, 3]);
        assert_eq!(open.next_record(), Err(RecordError::InvalidLength { bytes: 3 }));
    }
}
