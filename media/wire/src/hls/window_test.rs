//! Tests of playlist contents and of resource lookups while a stream progresses.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::{Lookup, Readiness, Reload, Settings, Window};
use crate::cmaf::{Init, Output, Part};
use crate::codec::aac;
use crate::targets::Targets;
use crate::{MediaTime, segment};

const SECOND: i64 = 1_000;

fn init(config: &'static [u8]) -> Arc<Init> {
    let track = Arc::new(aac::track(Bytes::from_static(config)).unwrap());
    Arc::new(Init::new(None, Some(track)).unwrap())
}

/// Its constants are not known yet.
fn undecided_window() -> Window {
    let ms = MediaTime::from_ms;
    let started_at_ms = 1_795_494_512_017;
    let settings = Settings { part_duration: ms(500), segment_duration: ms(SECOND), listed_segments: 4, started_at_ms };
    Window::new(settings)
}

fn window() -> Window {
    let mut window = undecided_window();
    window.set_targets(targets());
    window
}

/// As the origin decides them after a first segment of a second.
fn targets() -> Targets {
    Targets { segment_secs: NonZeroU32::new(1), ..Targets::new(MediaTime::from_ms(500)) }
}

fn end_segment(window: &mut Window, ms: i64) {
    assert!(window.apply(Output::End { duration: MediaTime::from_ms(ms) }));
}

fn begin_segment(window: &mut Window, number: u64, init: &Arc<Init>, discontinuity: bool) {
    let segment = segment::Segment { number, start: MediaTime::from_ms(number as i64 * SECOND) };
    window.apply(Output::Begin { segment, init: Arc::clone(init), discontinuity });
}

fn add_part(window: &mut Window, index: u32) {
    let bytes = Bytes::from(vec![index as u8; 1_000]);
    let duration = MediaTime::from_ms(500);
    assert!(window.apply(Output::Part(Part { index, duration, independent: index == 0, bytes })));
}

fn add_segment(window: &mut Window, number: u64, init: &Arc<Init>, discontinuity: bool) {
    begin_segment(window, number, init, discontinuity);
    add_part(window, 0);
    add_part(window, 1);
    end_segment(window, SECOND);
}

fn parse_playlist(text: &str) -> m3u8_rs::MediaPlaylist {
    let (rest, playlist) = m3u8_rs::parse_media_playlist(text.as_bytes()).unwrap();
    assert!(rest.is_empty());
    playlist
}

#[test]
fn media_playlist_equals_the_golden_text() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    for number in 7..12 {
        add_segment(&mut window, number, &init, false);
    }
    begin_segment(&mut window, 12, &init, false);
    add_part(&mut window, 0);
    let id = init.id;
    let expect = format!(
        "#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:1
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.650,HOLD-BACK=3.0
#EXT-X-PART-INF:PART-TARGET=0.550
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA-SEQUENCE:8
#EXT-X-DISCONTINUITY-SEQUENCE:9020
#EXT-X-MAP:URI=\"a/1795494512017/init-{id:08x}.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:28:40.017Z
#EXTINF:1.00000,
a/1795494512017/8.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:28:41.017Z
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/9.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/9.1.m4s\"
#EXTINF:1.00000,
a/1795494512017/9.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:28:42.017Z
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/10.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/10.1.m4s\"
#EXTINF:1.00000,
a/1795494512017/10.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:28:43.017Z
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/11.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/11.1.m4s\"
#EXTINF:1.00000,
a/1795494512017/11.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-24T04:28:44.017Z
#EXT-X-PART:DURATION=0.50000,URI=\"a/1795494512017/12.0.m4s\",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"a/1795494512017/12.1.m4s\"
"
    );
    assert_eq!(window.media_playlist("a/"), expect);
    let signed = expect.replace(".m4s", ".m4s?sig=7.x").replace(".mp4", ".mp4?sig=7.x");
    assert_eq!(window.media_playlist_with_query("a/", "?sig=7.x"), signed);
}

#[test]
fn independent_parser_reads_the_media_playlist() {
    let (mut window, one, two) = (window(), init(&[0x11, 0x90]), init(&[0x12, 0x10]));
    for number in 0..6 {
        add_segment(&mut window, number, if number < 4 { &one } else { &two }, number == 4);
    }
    let live = parse_playlist(&window.media_playlist(""));
    assert_eq!((live.media_sequence, live.segments.len(), live.end_list), (2, 4, false));
    assert_eq!(live.discontinuity_sequence, 9_020);
    let maps: Vec<_> = live.segments.iter().map(|s| s.map.as_ref().map(|m| m.uri.clone())).collect();
    let uri = |init: &Init| Some(format!("1795494512017/init-{:08x}.mp4", init.id));
    assert_eq!(maps, [uri(&one), None, uri(&two), None]);
    assert!(live.segments[2].discontinuity && !live.segments[1].discontinuity);
    assert_eq!(live.segments[3].uri, "1795494512017/5.m4s");
    for number in 6..9 {
        add_segment(&mut window, number, &two, false);
    }
    assert_eq!(parse_playlist(&window.media_playlist("")).discontinuity_sequence, 9_021);
    window.end();
    let ended = window.media_playlist("");
    assert!(parse_playlist(&ended).end_list);
    assert!(!ended.contains("PART"), "{ended}");
}

#[test]
fn multivariant_playlist_lists_codecs_and_bit_rate() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    assert_eq!(window.multivariant_playlist("a.m3u8"), None);
    add_segment(&mut window, 0, &init, false);
    let text = window.multivariant_playlist("a.m3u8").unwrap();
    let (_, playlist) = m3u8_rs::parse_master_playlist(text.as_bytes()).unwrap();
    let variant = &playlist.variants[0];
    assert_eq!((variant.uri.as_str(), variant.bandwidth, variant.average_bandwidth), ("a.m3u8", 16_000, Some(16_000)));
    assert_eq!(variant.codecs.as_deref(), Some("mp4a.40.2"));
}

#[test]
fn reload_is_ready_exactly_when_the_part_exists() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    let at = |w: &Window, msn, part| w.readiness(Reload { msn, part });
    assert_eq!(at(&window, 0, Some(0)), Readiness::Pending);
    add_segment(&mut window, 5, &init, false);
    assert_eq!(at(&window, 5, None), Readiness::Ready);
    assert_eq!(at(&window, 5, Some(1)), Readiness::Ready);
    // Past the end of segment 5: part 0 of segment 6.
    assert_eq!(at(&window, 5, Some(2)), Readiness::Pending);
    assert_eq!(at(&window, 6, Some(0)), Readiness::Pending);
    begin_segment(&mut window, 6, &init, false);
    add_part(&mut window, 0);
    assert_eq!(at(&window, 5, Some(2)), Readiness::Ready);
    assert_eq!(at(&window, 6, Some(0)), Readiness::Ready);
    assert_eq!(at(&window, 6, Some(1)), Readiness::Pending);
    assert_eq!(at(&window, 6, None), Readiness::Pending);
    assert_eq!(at(&window, 8, Some(0)), Readiness::Pending);
    for absurd in [(9, None), (9, Some(0)), (u64::MAX, Some(u32::MAX)), (6, Some(8))] {
        assert_eq!(at(&window, absurd.0, absurd.1), Readiness::TooFarAhead, "{absurd:?}");
    }
    window.end();
    assert_eq!(at(&window, 99, None), Readiness::Ready);
}

#[test]
fn parts_and_segments_remain_available_after_they_leave_the_playlist() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    for number in 0..10 {
        add_segment(&mut window, number, &init, false);
    }
    assert_eq!(window.listed().next().unwrap().number, 6);
    assert_eq!(window.segment(1), Lookup::NotFound);
    let Lookup::Found(pieces) = window.segment(2) else { panic!("gone") };
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 2_000);
    assert!(matches!(window.part(2, 1), Lookup::Found(_)));
    assert_eq!(window.part(2, 2), Lookup::NotFound);
    assert_eq!(window.part(10, 0), Lookup::Pending);
    assert_eq!((window.part(10, 1), window.part(10, 2)), (Lookup::Pending, Lookup::NotFound));
    begin_segment(&mut window, 10, &init, false);
    add_part(&mut window, 0);
    assert_eq!(window.part(10, 1), Lookup::Pending);
    // Another node may be slightly ahead.
    assert_eq!((window.part(10, 2), window.part(10, 3)), (Lookup::Pending, Lookup::NotFound));
    assert_eq!((window.part(11, 0), window.part(11, 1)), (Lookup::Pending, Lookup::NotFound));
    assert_eq!((window.segment(10), window.segment(11)), (Lookup::Pending, Lookup::NotFound));
    assert_eq!(window.init(init.id), Some(init.bytes.clone()));
    window.end();
    assert_eq!(window.part(10, 1), Lookup::NotFound);
}

#[test]
fn gathered_segment_is_one_buffer_and_its_parts_are_slices_of_it() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    add_segment(&mut window, 0, &init, false);
    window.gather_newest(|_| Some(Bytes::from_static(b"too short")));
    window.gather_newest(|_| None);
    assert!(matches!(window.segment(0), Lookup::Found(pieces) if pieces.len() == 2), "nothing was gathered");
    window.gather_newest(|pieces| Some(pieces.concat().into()));
    let Lookup::Found(pieces) = window.segment(0) else { panic!("gone") };
    let [gathered] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
    let Lookup::Found(part) = window.part(0, 1) else { panic!("gone") };
    assert_eq!((&gathered[..1_000], &gathered[1_000..]), (&[0; 1_000][..], &[1; 1_000][..]));
    assert_eq!(part.as_ptr(), gathered[1_000..].as_ptr());
    // A clone of the window shares the segment, which is then not replaced.
    let copy = window.clone();
    window.gather_newest(|_| panic!("it is shared"));
    assert_eq!(copy.segment(0), window.segment(0));
}

/// The tags that must not change.
fn constants(window: &Window) -> Vec<String> {
    let tags = ["#EXT-X-TARGETDURATION", "#EXT-X-SERVER-CONTROL", "#EXT-X-PART-INF"];
    let text = window.media_playlist("");
    text.lines().filter(|line| tags.iter().any(|tag| line.starts_with(tag))).map(str::to_owned).collect()
}

#[test]
fn no_segment_and_no_part_changes_the_constants() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    add_segment(&mut window, 0, &init, false);
    let before = constants(&window);
    assert_eq!(before.len(), 3);
    begin_segment(&mut window, 1, &init, false);
    let long = Part { duration: MediaTime::from_ms(550), independent: true, index: 0, bytes: Bytes::from_static(b"x") };
    window.apply(Output::Part(long));
    assert_eq!(constants(&window), before);
    end_segment(&mut window, 1_499);
    assert_eq!(constants(&window), before);
}

#[test]
fn window_without_constants_of_an_origin_decides_them_once() {
    let (mut window, init) = (undecided_window(), init(&[0x11, 0x90]));
    begin_segment(&mut window, 0, &init, false);
    add_part(&mut window, 0);
    end_segment(&mut window, 8_333);
    assert!(!window.is_playable(), "the origin may still send them");
    begin_segment(&mut window, 1, &init, false);
    assert!(window.is_playable());
    assert_eq!(window.target_duration_secs(), 9);
    add_part(&mut window, 0);
    end_segment(&mut window, 12_000);
    begin_segment(&mut window, 2, &init, false);
    assert_eq!(window.target_duration_secs(), 9);
}

#[test]
fn stream_that_ends_within_its_first_segment_is_playable() {
    let (mut window, init) = (undecided_window(), init(&[0x11, 0x90]));
    begin_segment(&mut window, 0, &init, false);
    add_part(&mut window, 0);
    end_segment(&mut window, 0x7fff_fff0);
    window.end();
    assert!(window.is_playable());
    assert_eq!(window.target_duration_secs(), 60, "the maximum, whatever a segment lasts");
}

#[test]
fn playlist_of_a_stream_with_long_frames_has_no_parts() {
    let (mut window, init) = (undecided_window(), init(&[0x11, 0x90]));
    window.set_targets(Targets { has_parts: false, ..targets() });
    for number in 7..9 {
        add_segment(&mut window, number, &init, false);
    }
    begin_segment(&mut window, 9, &init, false);
    add_part(&mut window, 0);
    let text = window.media_playlist("");
    assert!(!text.contains("PART") && !text.contains("PRELOAD"), "{text}");
    assert!(text.contains("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=3.0\n"), "{text}");
    assert_eq!(parse_playlist(&text).segments.len(), 2);
}

#[test]
fn independent_segments_are_not_promised_once_one_is_not() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    add_segment(&mut window, 7, &init, false);
    let tag = "#EXT-X-INDEPENDENT-SEGMENTS";
    assert!(window.media_playlist("").contains(tag));
    assert!(window.multivariant_playlist("a.m3u8").unwrap().contains(tag));
    window.set_targets(Targets { independent: false, ..targets() });
    assert!(!window.media_playlist("").contains(tag));
    assert!(!window.multivariant_playlist("a.m3u8").unwrap().contains(tag));
}

#[test]
fn playlist_restarts_after_lost_segments() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    add_segment(&mut window, 0, &init, false);
    add_segment(&mut window, 1, &init, true);
    add_segment(&mut window, 5, &init, true);
    let playlist = parse_playlist(&window.media_playlist(""));
    assert_eq!((playlist.media_sequence, playlist.segments.len(), playlist.discontinuity_sequence), (5, 1, 9_021));
    assert_eq!(window.segment(1), Lookup::NotFound);
}

#[test]
fn new_generation_has_its_own_folder_and_continues_the_numbering() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    add_segment(&mut window, 0, &init, false);
    add_segment(&mut window, 1, &init, true);
    let before = parse_playlist(&window.media_playlist(""));
    let generation = window.generation() + 90_000;
    window.begin_generation(generation);
    assert!(!window.is_playable() && window.segment(1) == Lookup::NotFound);
    let number = crate::segment::first_segment_number(generation);
    add_segment(&mut window, number, &init, false);
    assert!(!window.is_playable(), "the constants of the new generation are not known yet");
    window.set_targets(targets());
    let after = parse_playlist(&window.media_playlist(""));
    assert_eq!((after.media_sequence, after.segments.len()), (number, 1));
    assert!(after.discontinuity_sequence > before.discontinuity_sequence + 1);
    assert_eq!(after.segments[0].uri, format!("{generation}/{number}.m4s"));
    assert!(!after.segments[0].discontinuity, "a node that joins now would not mark it");
}
