//! What the playlist says and what requests find, as a stream goes on.

use std::sync::Arc;

use bytes::Bytes;

use super::{Found, Readiness, Reload, Settings, Window};
use crate::cmaf::{Init, Output, Part};
use crate::codec::aac;
use crate::{MediaTime, segment};

const SECOND: i64 = 1_000;

fn init(config: &'static [u8]) -> Arc<Init> {
    let track = Arc::new(aac::track(Bytes::from_static(config)).unwrap());
    Arc::new(Init::new(None, Some(track)).unwrap())
}

fn window() -> Window {
    let ms = MediaTime::from_ms;
    let started_at_ms = 1_795_494_512_017;
    Window::new(Settings { part: ms(500), segment: ms(SECOND), listed: 4, started_at_ms })
}

fn begin(window: &mut Window, number: u64, init: &Arc<Init>, discontinuity: bool) {
    let segment = segment::Segment { number, start: MediaTime::from_ms(number as i64 * SECOND) };
    window.apply(Output::Begin { segment, init: Arc::clone(init), discontinuity });
}

fn part(window: &mut Window, index: u32) {
    let bytes = Bytes::from(vec![index as u8; 1_000]);
    let duration = MediaTime::from_ms(500);
    assert!(window.apply(Output::Part(Part { index, duration, independent: index == 0, bytes })));
}

fn whole(window: &mut Window, number: u64, init: &Arc<Init>, discontinuity: bool) {
    begin(window, number, init, discontinuity);
    part(window, 0);
    part(window, 1);
    assert!(window.apply(Output::End));
}

fn parsed(text: &str) -> m3u8_rs::MediaPlaylist {
    let (rest, playlist) = m3u8_rs::parse_media_playlist(text.as_bytes()).unwrap();
    assert!(rest.is_empty());
    playlist
}

#[test]
fn the_media_playlist_reads_exactly_so() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    for number in 7..12 {
        whole(&mut window, number, &init, false);
    }
    begin(&mut window, 12, &init, false);
    part(&mut window, 0);
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
}

#[test]
fn a_parser_of_others_reads_the_same() {
    let (mut window, one, two) = (window(), init(&[0x11, 0x90]), init(&[0x12, 0x10]));
    for number in 0..6 {
        whole(&mut window, number, if number < 4 { &one } else { &two }, number == 4);
    }
    let live = parsed(&window.media_playlist(""));
    assert_eq!((live.media_sequence, live.segments.len(), live.end_list), (2, 4, false));
    assert_eq!(live.discontinuity_sequence, 9_020);
    let maps: Vec<_> = live.segments.iter().map(|s| s.map.as_ref().map(|m| m.uri.clone())).collect();
    let uri = |init: &Init| Some(format!("1795494512017/init-{:08x}.mp4", init.id));
    assert_eq!(maps, [uri(&one), None, uri(&two), None]);
    assert!(live.segments[2].discontinuity && !live.segments[1].discontinuity);
    assert_eq!(live.segments[3].uri, "1795494512017/5.m4s");
    for number in 6..9 {
        whole(&mut window, number, &two, false);
    }
    assert_eq!(parsed(&window.media_playlist("")).discontinuity_sequence, 9_021);
    window.end();
    let ended = window.media_playlist("");
    assert!(parsed(&ended).end_list);
    assert!(!ended.contains("PART"), "{ended}");
}

#[test]
fn the_multivariant_playlist_names_codecs_and_bit_rate() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    assert_eq!(window.multivariant_playlist("a.m3u8"), None);
    whole(&mut window, 0, &init, false);
    let text = window.multivariant_playlist("a.m3u8").unwrap();
    let (_, playlist) = m3u8_rs::parse_master_playlist(text.as_bytes()).unwrap();
    let variant = &playlist.variants[0];
    assert_eq!((variant.uri.as_str(), variant.bandwidth, variant.average_bandwidth), ("a.m3u8", 16_000, Some(16_000)));
    assert_eq!(variant.codecs.as_deref(), Some("mp4a.40.2"));
}

#[test]
fn a_reload_is_ready_exactly_when_the_part_exists() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    let at = |w: &Window, msn, part| w.readiness(Reload { msn, part });
    assert_eq!(at(&window, 0, Some(0)), Readiness::Soon);
    whole(&mut window, 5, &init, false);
    assert_eq!(at(&window, 5, None), Readiness::Now);
    assert_eq!(at(&window, 5, Some(1)), Readiness::Now);
    // Past the end of segment 5: part 0 of segment 6.
    assert_eq!(at(&window, 5, Some(2)), Readiness::Soon);
    assert_eq!(at(&window, 6, Some(0)), Readiness::Soon);
    begin(&mut window, 6, &init, false);
    part(&mut window, 0);
    assert_eq!(at(&window, 5, Some(2)), Readiness::Now);
    assert_eq!(at(&window, 6, Some(0)), Readiness::Now);
    assert_eq!(at(&window, 6, Some(1)), Readiness::Soon);
    assert_eq!(at(&window, 6, None), Readiness::Soon);
    assert_eq!(at(&window, 8, Some(0)), Readiness::Soon);
    for absurd in [(9, None), (9, Some(0)), (u64::MAX, Some(u32::MAX)), (6, Some(8))] {
        assert_eq!(at(&window, absurd.0, absurd.1), Readiness::Absurd, "{absurd:?}");
    }
    window.end();
    assert_eq!(at(&window, 99, None), Readiness::Now);
}

#[test]
fn parts_and_segments_are_found_until_long_after_they_left_the_playlist() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    for number in 0..10 {
        whole(&mut window, number, &init, false);
    }
    assert_eq!(window.listed().next().unwrap().number, 6);
    assert_eq!(window.segment(1), Found::Never);
    let Found::Here(pieces) = window.segment(2) else { panic!("gone") };
    assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 2_000);
    assert!(matches!(window.part(2, 1), Found::Here(_)));
    assert_eq!(window.part(2, 2), Found::Never);
    assert_eq!(window.part(10, 0), Found::Soon);
    assert_eq!((window.part(10, 1), window.part(10, 2)), (Found::Soon, Found::Never));
    begin(&mut window, 10, &init, false);
    part(&mut window, 0);
    assert_eq!(window.part(10, 1), Found::Soon);
    // Another node may be a moment ahead.
    assert_eq!((window.part(10, 2), window.part(10, 3)), (Found::Soon, Found::Never));
    assert_eq!((window.part(11, 0), window.part(11, 1)), (Found::Soon, Found::Never));
    assert_eq!((window.segment(10), window.segment(11)), (Found::Soon, Found::Never));
    assert_eq!(window.init(init.id), Some(init.bytes.clone()));
    window.end();
    assert_eq!(window.part(10, 1), Found::Never);
}

#[test]
fn a_segment_that_is_gathered_is_one_piece_and_its_parts_lie_in_it() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    whole(&mut window, 0, &init, false);
    window.gather_newest(|_| Some(Bytes::from_static(b"too short")));
    window.gather_newest(|_| None);
    assert!(matches!(window.segment(0), Found::Here(pieces) if pieces.len() == 2), "nothing was gathered");
    window.gather_newest(|pieces| Some(pieces.concat().into()));
    let Found::Here(pieces) = window.segment(0) else { panic!("gone") };
    let [gathered] = &pieces[..] else { panic!("{} pieces", pieces.len()) };
    let Found::Here(part) = window.part(0, 1) else { panic!("gone") };
    assert_eq!((&gathered[..1_000], &gathered[1_000..]), (&[0; 1_000][..], &[1; 1_000][..]));
    assert_eq!(part.as_ptr(), gathered[1_000..].as_ptr());
    // Whoever reads a copy of the window goes on with what is there.
    let copy = window.clone();
    window.gather_newest(|_| panic!("it is shared"));
    assert_eq!(copy.segment(0), window.segment(0));
}

#[test]
fn a_long_segment_raises_the_target_duration_and_a_long_part_the_part_target() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    begin(&mut window, 0, &init, false);
    let duration = MediaTime::from_ms(8_333);
    let long = Part { index: 0, duration, independent: true, bytes: Bytes::from_static(b"x") };
    window.apply(Output::Part(long));
    window.apply(Output::End);
    assert_eq!(window.target_duration_secs(), 8);
    assert_eq!(window.part_target(), duration);
    for number in 1..6 {
        whole(&mut window, number, &init, false);
    }
    assert_eq!((window.target_duration_secs(), window.part_target()), (1, MediaTime::from_ms(550)));
}

#[test]
fn after_lost_segments_the_playlist_begins_anew() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    whole(&mut window, 0, &init, false);
    whole(&mut window, 1, &init, true);
    whole(&mut window, 5, &init, true);
    let playlist = parsed(&window.media_playlist(""));
    assert_eq!((playlist.media_sequence, playlist.segments.len(), playlist.discontinuity_sequence), (5, 1, 9_021));
    assert_eq!(window.segment(1), Found::Never);
}

#[test]
fn a_later_life_takes_its_own_folder_and_counts_on() {
    let (mut window, init) = (window(), init(&[0x11, 0x90]));
    whole(&mut window, 0, &init, false);
    whole(&mut window, 1, &init, true);
    let before = parsed(&window.media_playlist(""));
    let life = window.life() + 90_000;
    window.begin_life(life);
    assert!(!window.is_playable() && window.segment(1) == Found::Never);
    let number = crate::segment::first_number(life);
    whole(&mut window, number, &init, false);
    let after = parsed(&window.media_playlist(""));
    assert_eq!((after.media_sequence, after.segments.len()), (number, 1));
    assert!(after.discontinuity_sequence > before.discontinuity_sequence + 1);
    assert_eq!(after.segments[0].uri, format!("{life}/{number}.m4s"));
    assert!(!after.segments[0].discontinuity, "a node that joins now would not say it");
}
