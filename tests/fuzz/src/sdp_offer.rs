//! SDP offers: every accepted offer can be answered, and the lines of the answer are well-formed.

use headwater_wire::webrtc::{Answer, Credentials, Fingerprint, Offer, SendParameters};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Ok(sdp) = std::str::from_utf8(data) else { return };
    let _ = Fingerprint::parse(sdp);
    let Ok(offer) = Offer::parse(sdp) else { return };
    let credentials = Credentials { ufrag: "abcd".to_owned(), password: "0123456789abcdefghijkl".to_owned() };
    let sending: Vec<_> = offer
        .sections
        .iter()
        .map(|s| s.opus().or(s.h264(100)).map(|payload_type| SendParameters { payload_type, ssrc: 7 }))
        .collect();
    let answer = Answer {
        session_id: 1,
        credentials: &credentials,
        fingerprint: offer.fingerprint,
        candidates: &[([192, 0, 2, 1], 50_000).into()],
        cname: "headwater",
    }
    .encode(&offer, &sending);
    assert!(answer.split_inclusive("\r\n").all(|line| line.ends_with("\r\n") && line.as_bytes()[1] == b'='));
}
