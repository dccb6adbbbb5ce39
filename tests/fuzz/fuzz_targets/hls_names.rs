//! The target `hls_names` of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::hls_names::run(data));
