//! The RTMP handshake: reply length and remaining bytes do not depend on the read sizes.

use headwater_wire::rtmp::Handshake;
use headwater_wire::rtmp::handshake::Progress;

fn shake(bytes: &[u8], piece: usize) -> Option<(usize, Option<Vec<u8>>)> {
    let (mut server, mut reply) = (Handshake::default(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    while let Some(bytes) = pieces.next() {
        if let Progress::Done(mut rest) = server.on_bytes(bytes, &mut reply).ok()? {
            rest.extend(pieces.flatten());
            return Some((reply.len(), Some(rest)));
        }
    }
    Some((reply.len(), None))
}

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    // Padded with zeros, because few inputs reach the 3,073 bytes of a handshake.
    let mut whole = vec![3];
    whole.extend_from_slice(bytes);
    whole.resize(whole.len().max(1_537), 0);
    whole.extend_from_slice(bytes);
    assert_eq!(shake(&whole, whole.len()), shake(&whole, usize::from(piece) + 1));
}
