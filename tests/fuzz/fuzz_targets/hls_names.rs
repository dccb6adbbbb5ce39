//! HLS queries and resource names: every accepted name is in canonical form.
#![no_main]

use headwater_wire::hls::{Reload, Resource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Reload::parse(text);
    if let Some(resource) = Resource::parse(text) {
        assert_eq!(resource.to_string(), text);
    }
});
