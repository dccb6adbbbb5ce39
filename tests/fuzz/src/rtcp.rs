//! RTP headers and decrypted RTCP feedback: the number of sequence numbers in a NACK is bounded.

use headwater_wire::rtp::Header;
use headwater_wire::webrtc::Feedback;

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let _ = Header::parse(data);
    for feedback in Feedback::parse(data).unwrap_or_default() {
        if let Feedback::Nack { sequence_numbers, .. } = feedback {
            assert!(sequence_numbers.len() <= 256);
        }
    }
}
