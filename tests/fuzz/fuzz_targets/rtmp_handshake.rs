//! The target `rtmp_handshake` of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::rtmp_handshake::run(data));
