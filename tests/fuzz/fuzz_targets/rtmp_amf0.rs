//! The target `rtmp_amf0` of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::rtmp_amf0::run(data));
