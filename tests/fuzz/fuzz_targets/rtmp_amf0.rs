//! AMF0: decoded values round-trip.
#![no_main]

use headwater_wire::rtmp::amf0;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(values) = amf0::decode(data) else { return };
    let bytes = amf0::encode(&values);
    // Compared as bytes, because NaN is not equal to itself.
    if let Ok(again) = amf0::decode(&bytes) {
        assert_eq!(amf0::encode(&again), bytes);
    }
});
