//! The two STUN messages that a controlling ICE agent must send: a binding request, and the
//! response to one of the server, both with integrity and fingerprint (RFC 8489 §14.5, §14.7; RFC
//! 8445 §7).

use std::net::SocketAddrV4;

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
    seal(&mut out, &remote.pwd);
    out
}

/// Encodes the success response to a binding request from `server`. Returns `None` for any other
/// packet.
pub(crate) fn response(packet: &[u8], local: &Credentials, server: SocketAddrV4) -> Option<Vec<u8>> {
    if packet.len() < 20 || packet[..2] != [0, 1] || packet[4..8] != MAGIC {
        return None;
    }
    let mut out = vec![1, 1, 0, 0];
    out.extend_from_slice(&packet[4..20]);
    let mut mapped = vec![0, 1];
    let plain = server.port().to_be_bytes().into_iter().zip(MAGIC);
    mapped.extend(plain.chain(server.ip().octets().into_iter().zip(MAGIC)).map(|(byte, mask)| byte ^ mask));
    attribute(&mut out, 0x0020, &mapped); // XOR-MAPPED-ADDRESS
    seal(&mut out, &local.pwd);
    Some(out)
}

/// Adds MESSAGE-INTEGRITY with this password, and FINGERPRINT.
fn seal(out: &mut Vec<u8>, password: &str) {
    set_length(out, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, out);
    attribute(out, 0x0008, tag.as_ref());
    set_length(out, 8);
    let fingerprint = crc32fast::hash(out) ^ 0x5354_554e;
    attribute(out, 0x8028, &fingerprint.to_be_bytes());
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
