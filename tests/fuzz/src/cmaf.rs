//! RTMP messages through ingest, packager and window: the output consists of complete boxes in
//! order, and of playlists.

use bytes::Bytes;
use headwater_wire::MediaTime;
use headwater_wire::cmaf::{Output, Packager};
use headwater_wire::hls::{Settings, Window};
use headwater_wire::rtmp::ingest::{Ingest, IngestOutput};
use headwater_wire::rtmp::message::{Message, kind};
use headwater_wire::segment::Segmenter;

/// Returns the types of the boxes. Panics if the boxes do not exactly fill the bytes.
fn boxes(mut bytes: &[u8]) -> Vec<[u8; 4]> {
    let mut types = Vec::new();
    while !bytes.is_empty() {
        let size = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        types.push(*bytes[4..].first_chunk().unwrap());
        bytes = &bytes[size..];
    }
    types
}

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let (part_duration, segment_duration) = (MediaTime::from_ms(200), MediaTime::from_ms(2_000));
    let mut ingest = Ingest::default();
    let mut segmenter = Segmenter::new(segment_duration, part_duration);
    let mut packager = Packager::new(segmenter.targets());
    let mut window = Window::new(Settings { part_duration, segment_duration, listed_segments: 6, started_at_ms: 1 });
    let (mut out, mut open, mut index) = (Vec::new(), false, 0);
    // The input is a sequence of messages: 1 byte kind, 1 byte length, 2 bytes time since the last
    // message, body.
    let (mut rest, mut timestamp_ms) = (Bytes::copy_from_slice(data), 0_u32);
    while rest.len() > 4 {
        let head = rest.split_to(4);
        let payload = rest.split_to(usize::from(head[1]).min(rest.len()));
        timestamp_ms = timestamp_ms.wrapping_add(u32::from(u16::from_be_bytes([head[2], head[3]])));
        let kind = if head[0] & 1 == 0 { kind::VIDEO } else { kind::AUDIO };
        match ingest.on_message(Message { kind, stream: 1, timestamp_ms, payload }) {
            Ok(Some(IngestOutput::Frame(frame))) => {
                let segment = segmenter.on_frame(&frame);
                packager.set_targets(segmenter.targets());
                window.set_targets(segmenter.targets());
                packager.push(&frame, segment, &mut out);
            }
            Ok(_) => {}
            Err(_) if head[0] & 2 != 0 => packager.abandon(&mut out),
            Err(_) => {}
        }
        if rest.len() <= 4 {
            packager.finish(&mut out);
        }
        for output in out.drain(..) {
            match &output {
                Output::Begin { init, .. } => {
                    assert!(!std::mem::replace(&mut open, true), "a segment begins inside another");
                    assert_eq!(boxes(&init.bytes), [*b"ftyp", *b"moov"]);
                    index = 0;
                }
                Output::Part(part) => {
                    assert!(open && part.index == index, "part {} instead of {index}", part.index);
                    assert_eq!(boxes(&part.bytes), [*b"moof", *b"mdat"]);
                    let permitted = MediaTime::ZERO..=segmenter.targets().part;
                    assert!(permitted.contains(&part.duration), "{:?}", part.duration);
                    index += 1;
                }
                Output::End { .. } => assert!(std::mem::replace(&mut open, false), "nothing was open"),
                Output::Refused(_) | Output::TooLong => {}
            }
            window.apply(output);
        }
        let _ = (window.part_target(), window.target_duration_secs(), window.bitrate_bps());
    }
    let _ = (window.media_playlist("demo/"), window.multivariant_playlist("demo.m3u8"));
}
