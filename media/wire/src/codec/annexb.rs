//! Converts between byte streams with start codes (ITU-T H.264 annex B, H.265 annex B) and the
//! length-prefixed NAL units of frames.

use bytes::{BufMut, Bytes, BytesMut};

/// Returns the NAL units of a byte stream, without start codes and trailing zero bytes. Empty NAL
/// units are skipped.
pub fn nal_units(stream: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = start_code(stream, 0).map(|(_, after)| after);
    std::iter::from_fn(move || {
        loop {
            let begin = at?;
            let next = start_code(stream, begin);
            let mut end = next.map_or(stream.len(), |(before, _)| before);
            at = next.map(|(_, after)| after);
            // trailing_zero_8bits belong to the byte stream, not to the NAL unit (annex B §B.1.2).
            while end > begin && stream[end - 1] == 0 {
                end -= 1;
            }
            if end > begin {
                return Some(stream.slice(begin..end));
            }
        }
    })
}

/// Converts a byte stream to NAL units with 4-byte length prefixes.
pub fn to_length_prefixed(stream: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(stream.len() + 16);
    for nal in nal_units(stream) {
        out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
        out.extend_from_slice(&nal);
    }
    out.freeze()
}

/// Converts NAL units with 4-byte length prefixes to a byte stream with 4-byte start codes. Stops
/// at an invalid length.
pub fn from_length_prefixed(payload: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len());
    for nal in super::h264::nal_units(payload) {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&nal);
    }
    out.freeze()
}

/// Returns the positions where the next start code begins and ends.
fn start_code(stream: &[u8], from: usize) -> Option<(usize, usize)> {
    let found = stream.get(from..)?.windows(3).position(|w| w == [0, 0, 1])? + from;
    Some((found, found + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_round_trip_through_lengths() {
        let stream = Bytes::from_static(&[9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 0, 1, 0x65, 3, 4]);
        let prefixed = to_length_prefixed(&stream);
        assert_eq!(prefixed[..], [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 2, 0x68, 2, 0, 0, 0, 3, 0x65, 3, 4]);
        assert_eq!(to_length_prefixed(&from_length_prefixed(&prefixed)), prefixed);
    }

    #[test]
    fn stream_without_start_code_or_nal_unit_yields_nothing() {
        for stream in [&[][..], &[0, 0], &[1, 2, 3, 4], &[0, 0, 1], &[0, 0, 1, 0, 0, 1, 0]] {
            assert_eq!(nal_units(&Bytes::copy_from_slice(stream)).count(), 0, "{stream:?}");
        }
    }
}
