//! DTLS ClientHello in one or more datagrams: the returned datagrams are never longer than the
//! input, and no datagram has more fragments than bytes.

use headwater_wire::webrtc::{ClientHello, count_handshake_fragments};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    // The input is a sequence of datagrams with 2-byte length prefixes.
    let (mut hello, mut rest, mut bytes) = (ClientHello::default(), data, 0);
    while let Some((len, after)) = rest.split_first_chunk() {
        let (datagram, after) = after.split_at(usize::from(u16::from_be_bytes(*len)).min(after.len()));
        rest = after;
        assert!(count_handshake_fragments(datagram) <= datagram.len());
        let pushed = hello.push(datagram);
        let _ = hello.offers_gcm();
        bytes += datagram.len();
        match pushed {
            Ok(false) => {}
            Ok(true) | Err(_) => break,
        }
    }
    assert!(hello.into_datagrams().iter().map(Vec::len).sum::<usize>() <= bytes);
}
