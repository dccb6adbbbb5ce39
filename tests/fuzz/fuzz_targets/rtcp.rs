//! RTP headers and decrypted RTCP feedback: the number of sequence numbers in a NACK is bounded.
#![no_main]

use headwater_wire::rtp::Header;
use headwater_wire::webrtc::Feedback;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Header::parse(data);
    for feedback in Feedback::parse(data).unwrap_or_default() {
        if let Feedback::Nack { sequence_numbers, .. } = feedback {
            assert!(sequence_numbers.len() <= 256);
        }
    }
});
