//! Counts the handshake messages and fragments in a datagram (RFC 6347 §4.1, §4.2.2), so that the
//! work of joining them can be limited.
//!
//! Only headers are read. Must not know what the messages contain.

const RECORD_HEADER_BYTES: usize = 13;
const HANDSHAKE_HEADER_BYTES: usize = 12;
/// The content type of handshake messages.
const HANDSHAKE: u8 = 22;

/// Returns the number of unencrypted handshake messages or fragments in a datagram. An incomplete
/// one counts too; the records after an incomplete one do not.
pub fn count_handshake_fragments(datagram: &[u8]) -> usize {
    let (mut rest, mut count) = (datagram, 0);
    while let Some((head, after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
        let length = usize::from(u16::from_be_bytes([head[11], head[12]]));
        let (record, after) = after.split_at(length.min(after.len()));
        if head[0] == HANDSHAKE && head[3..5] == [0, 0] {
            count += count_in_record(record);
        }
        rest = after;
    }
    count
}

/// Counts as a receiver splits a record: each header is followed by the length of the whole
/// message, or by the rest of the record if that is shorter.
fn count_in_record(mut record: &[u8]) -> usize {
    let mut count = 0;
    while !record.is_empty() {
        count += 1;
        let Some(head) = record.first_chunk::<HANDSHAKE_HEADER_BYTES>() else { break };
        let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        record = record.get(HANDSHAKE_HEADER_BYTES + length..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&(content.len() as u16).to_be_bytes());
        out.extend_from_slice(content);
        out
    }

    fn message(length: u8, fragment: &[u8]) -> Vec<u8> {
        let mut out = vec![1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, fragment.len() as u8];
        out.extend_from_slice(fragment);
        out
    }

    #[test]
    fn messages_of_all_unencrypted_handshake_records_are_counted() {
        let two = record(22, 0, &[message(3, b"abc"), message(0, b"")].concat());
        let fragment = record(22, 0, &message(100, b"a"));
        assert_eq!((count_handshake_fragments(&two), count_handshake_fragments(&fragment)), (2, 1));
        assert_eq!(count_handshake_fragments(&[two, fragment].concat()), 3);
        // An alert, and an encrypted message.
        assert_eq!(count_handshake_fragments(&[record(21, 0, b"ab"), record(22, 1, b"abc")].concat()), 0);
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        let whole = [record(22, 0, &[message(3, b"abc"), message(0, b"")].concat()), record(21, 0, b"ab")].concat();
        for end in 0..whole.len() {
            assert!(count_handshake_fragments(&whole[..end]) <= 2);
        }
        for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let _ = count_handshake_fragments(&bytes);
        }
    }
}
