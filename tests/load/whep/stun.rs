//! The one STUN message that a controlling ICE agent must send: a binding request with integrity
//! and fingerprint (RFC 8489 §14.5, §14.7; RFC 8445 §7.2.2).

use ring::hmac;

use super::sdp::Credentials;

/// Encodes a binding request that nominates its candidate pair.
pub(crate) fn request(local: &Credentials, remote: &Credentials, transaction: [u8; 12]) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&transaction);
    attribute(&mut out, 0x0006, format!("{}:{}", remote.ufrag, local.ufrag).as_bytes());
    attribute(&mut out, 0x0024, &0x6e00_1effu32.to_be_bytes()); // PRIORITY of a peer-reflexive candidate
    attribute(&mut out, 0x802a, &0x0123_4567_89ab_cdefu64.to_be_bytes()); // ICE-CONTROLLING
    attribute(&mut out, 0x0025, &[]); // USE-CANDIDATE
    set_length(&mut out, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, remote.pwd.as_bytes());
    let tag = hmac::sign(&key, &out);
    attribute(&mut out, 0x0008, tag.as_ref());
    set_length(&mut out, 8);
    let fingerprint = crc32fast::hash(&out) ^ 0x5354_554e;
    attribute(&mut out, 0x8028, &fingerprint.to_be_bytes());
    out
}

/// True if `packet` is the success response to the request with this transaction id.
pub(crate) fn is_success(packet: &[u8], transaction: [u8; 12]) -> bool {
    packet.len() >= 20 && packet[..2] == [1, 1] && packet[4..8] == MAGIC && packet[8..20] == transaction
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    set_length(out, 0);
}

/// Writes the message length as if `more` bytes followed.
fn set_length(out: &mut [u8], more: usize) {
    let length = (out.len() - 20 + more) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
