//! Tests with the vectors of RFC 5769 and with forged requests.

use std::net::SocketAddr;

use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::xoraddr::XorMappedAddress;

use super::*;

/// RFC 5769 §2.1: sample request, with FINGERPRINT.
const REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf,
    0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c, 0x69, 0x65,
    0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51,
    0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20,
    0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2,
    0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

fn local() -> Credentials {
    Credentials { ufrag: "evtj".to_owned(), password: "VOkJxbRl1RmTxUk/WvJxBt".to_owned() }
}

fn provider() -> std::sync::Arc<dyn rtc_crypto::RTCCryptoProvider> {
    rtc_crypto::default_provider().unwrap()
}

/// RFC 5769 §2.1.
#[test]
fn sample_request_is_parsed_and_its_password_verified() {
    let mut request = BindingRequest::parse(&REQUEST).unwrap();
    assert_eq!(request.receiver_ufrag(), "evtj");
    assert!(!request.use_candidate);
    let provider = provider();
    request.verify(&local(), "h6vY", provider.crypto()).unwrap();
    let wrong = Credentials { password: "VOkJxbRl1RmTxUk/WvJxBT".to_owned(), ..local() };
    assert_eq!(request.verify(&wrong, "h6vY", provider.crypto()), Err(StunError::WrongPassword));
    assert_eq!(request.verify(&local(), "h6vX", provider.crypto()), Err(StunError::WrongPassword));
}

/// RFC 5769 §2.2 and §2.3 contain the same responses for IPv4 and IPv6, but with a SOFTWARE
/// attribute.
#[test]
fn response_has_mapped_address_integrity_and_fingerprint() {
    let provider = provider();
    let request = BindingRequest::parse(&REQUEST).unwrap();
    for from in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853", "[::ffff:192.0.2.1]:32853"] {
        let from: SocketAddr = from.parse().unwrap();
        let raw = request.response(from, &local(), provider.crypto()).unwrap();
        let mut response = Message::new();
        response.unmarshal_binary(&raw).unwrap();
        assert_eq!(response.typ, BINDING_SUCCESS);
        assert_eq!(response.transaction_id.0, request.transaction());
        MessageIntegrity::check(&mut response, local().password.as_bytes(), provider.crypto()).unwrap();
        FINGERPRINT.check(&response).unwrap();
        let mut mapped = XorMappedAddress::default();
        rtc_stun::message::Getter::get_from(&mut mapped, &response).unwrap();
        assert_eq!((mapped.ip, mapped.port), (from.ip().to_canonical(), from.port()));
    }
}

#[test]
fn use_candidate_after_the_integrity_is_rejected() {
    let mut forged = REQUEST[..100].to_vec();
    forged.extend_from_slice(&[0x00, 0x25, 0x00, 0x00]);
    forged[3] = (forged.len() - 20) as u8;
    let provider = provider();
    let mut request = BindingRequest::parse(&forged).unwrap();
    assert_eq!(request.verify(&local(), "h6vY", provider.crypto()), Err(StunError::WrongPassword));
}

/// Returns the node's own check of a peer, and the peer's response to it.
fn check_and_response(remote: &Credentials) -> (Vec<u8>, Vec<u8>) {
    let provider = provider();
    let check = binding_check([7; 12], "evtj", remote, 1 << 40, provider.crypto()).unwrap();
    let request = BindingRequest::parse(&check).unwrap();
    let response = request.response(([192, 0, 2, 1], 9).into(), remote, provider.crypto()).unwrap();
    (check, response)
}

/// RFC 8445 §7.1.1 and §7.2.2.
#[test]
fn own_check_is_that_of_a_controlled_agent_and_never_nominates() {
    let provider = provider();
    let remote = Credentials { ufrag: "h6vY".to_owned(), password: "a password of the peer".to_owned() };
    let (check, _) = check_and_response(&remote);
    let mut request = BindingRequest::parse(&check).unwrap();
    request.verify(&remote, "evtj", provider.crypto()).unwrap();
    assert!(!request.use_candidate);
    let message = &request.message;
    assert_eq!(message.get(ATTR_ICE_CONTROLLED).unwrap(), (1_u64 << 40).to_be_bytes());
    assert_eq!(message.get(ATTR_PRIORITY).unwrap().len(), 4);
    FINGERPRINT.check(message).unwrap();
    assert_eq!(request.transaction(), [7; 12]);
}

#[test]
fn response_is_verified_only_with_the_password_of_the_peer() {
    let provider = provider();
    let remote = Credentials { ufrag: "h6vY".to_owned(), password: "a password of the peer".to_owned() };
    let (check, bytes) = check_and_response(&remote);
    assert!(BindingResponse::matches(&bytes) && !BindingResponse::matches(&check));
    assert_eq!(BindingResponse::parse(&check).unwrap_err(), StunError::UnexpectedType);
    let mut response = BindingResponse::parse(&bytes).unwrap();
    assert_eq!(response.transaction(), [7; 12]);
    response.verify(&remote.password, provider.crypto()).unwrap();
    assert_eq!(response.verify("another password", provider.crypto()), Err(StunError::WrongPassword));
    for end in 0..bytes.len() {
        assert!(BindingResponse::parse(&bytes[..end]).is_err(), "prefix of {end}");
    }
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        let passed =
            BindingResponse::parse(&flipped).is_ok_and(|mut r| r.verify(&remote.password, provider.crypto()).is_ok());
        // FINGERPRINT, at the end, proves nothing and is not checked.
        assert!(!passed || at >= bytes.len() - 8, "byte {at} bit {bit}");
    }
}

#[test]
fn no_prefix_and_no_flipped_bit_panics_or_is_verified() {
    let provider = provider();
    for end in 0..REQUEST.len() {
        assert!(BindingRequest::parse(&REQUEST[..end]).is_err(), "prefix of {end}");
    }
    for i in 0..REQUEST.len() {
        for bit in 0..8 {
            let mut bytes = REQUEST;
            bytes[i] ^= 1 << bit;
            let passed =
                BindingRequest::parse(&bytes).is_ok_and(|mut r| r.verify(&local(), "h6vY", provider.crypto()).is_ok());
            // FINGERPRINT, at the end, proves nothing and is not checked.
            assert!(!passed || i >= 100, "byte {i} bit {bit}");
        }
    }
}
