//! The target `sdp_offer` of libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headwater_fuzz::sdp_offer::run(data));
