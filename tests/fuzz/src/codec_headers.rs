//! Decoder configuration records, ADTS headers, Annex B and length-prefixed NAL units.

use bytes::Bytes;
use headwater_wire::codec::{aac, annexb, av1, h264, h265, opus};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(config) = h264::DecoderConfig::parse(&bytes) {
        let _ = (config.encode(), config.video(), config.codec_string());
    }
    let _ = h264::track(bytes.clone());
    let _ = h265::track(bytes.clone());
    let _ = av1::track(bytes.clone());
    let _ = aac::track(bytes.clone());
    let _ = aac::Adts::parse(&bytes);
    let _ = opus::track(bytes.clone());
    let _ = opus::packet_samples(&bytes);
    let _ = (h264::is_idr(&bytes), h265::is_irap(&bytes), h264::widen_lengths(&bytes, 2));
    let _ = annexb::from_length_prefixed(&annexb::to_length_prefixed(&bytes));
}
