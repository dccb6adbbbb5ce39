//! AMF0: decoded values round-trip.

use headwater_wire::rtmp::amf0;

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Ok(values) = amf0::decode(data) else { return };
    let bytes = amf0::encode(&values);
    // Compared as bytes, because NaN is not equal to itself.
    if let Ok(again) = amf0::decode(&bytes) {
        assert_eq!(amf0::encode(&again), bytes);
    }
}
