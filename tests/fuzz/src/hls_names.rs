//! HLS queries and resource names: every accepted name is in canonical form.

use headwater_wire::hls::{Reload, Resource};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Reload::parse(text);
    if let Some(resource) = Resource::parse(text) {
        assert_eq!(resource.to_string(), text);
    }
}
