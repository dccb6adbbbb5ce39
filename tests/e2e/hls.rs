//! HLS and LL-HLS: every URI of every playlist, and independent players.

use std::process::Command;

use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::{http, tools, wait};

use crate::probe;

const PLAYLISTS: [&str; 2] = ["/live/streams/demo.m3u8", "/live/streams/demo/playlist.m3u8"];

fn start_live_stream() -> Option<(Engine, Process)> {
    let engine = Engine::start(Options::default()).unwrap();
    let publisher = publish::start_ffmpeg(&Source::default(), &engine.rtmp_url("live/demo")).unwrap()?;
    engine.wait_live("live/demo").unwrap();
    Some((engine, publisher))
}

/// Resolves `reference` against the path of a playlist, as a player does.
fn resolve(playlist: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let folder = &playlist[..=playlist.rfind('/').unwrap()];
    format!("{folder}{}", reference.trim_start_matches("./"))
}

/// Every URI in a playlist.
fn references(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned);
    let quoted = text.lines().filter_map(|l| l.split_once("URI=\"")).filter_map(|(_, v)| v.split_once('"'));
    lines.chain(quoted.map(|(uri, _)| uri.to_owned())).collect()
}

#[test]
fn every_uri_of_every_playlist_responds_with_its_headers() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    for path in PLAYLISTS {
        let response = engine.get(path).unwrap();
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("*")), "{path}");
        assert_eq!(response.header("content-type"), Some("application/vnd.apple.mpegurl"));
        assert!(m3u8_rs::parse_media_playlist_res(&response.body).is_ok(), "{}", response.text());
        let text = response.text();
        for tag in ["#EXT-X-PART:", "#EXT-X-PART-INF:", "#EXT-X-PRELOAD-HINT:", "CAN-BLOCK-RELOAD=YES"] {
            assert!(text.contains(tag), "{path} has no {tag}: {text}");
        }
        let references = references(&text);
        assert!(references.len() > 5, "{text}");
        for reference in references {
            let address = resolve(path, &reference);
            let resource = engine.get(&address).unwrap();
            assert_eq!(resource.status, 200, "{address}: {}", resource.text());
            assert_eq!(resource.header("content-type"), Some("video/mp4"));
            assert!(resource.header("cache-control").unwrap().contains("immutable"));
            assert_eq!(resource.header("access-control-allow-origin"), Some("*"));
        }
    }
    let adaptive = engine.get("/live/streams/demo_adaptive.m3u8").unwrap();
    assert!(m3u8_rs::parse_master_playlist_res(&adaptive.body).is_ok(), "{}", adaptive.text());
    for reference in references(&adaptive.text()) {
        assert_eq!(engine.get(&resolve("/live/streams/demo_adaptive.m3u8", &reference)).unwrap().status, 200);
    }
    assert_eq!(engine.panics(), [""; 0]);
    // The requests are counted in the metrics.
    let counted = http::get(engine.health(), "/metrics").unwrap().text();
    for name in ["headwater_hls_packagers", "headwater_hls_playlists_total", "headwater_hls_resources_total"] {
        let value = counted.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
        assert!(value.is_some_and(|n| n > 0), "{name}: {value:?}");
    }
}

/// A request without a body takes the fast path, a request with `content-length` the router.
#[test]
fn fast_path_and_router_give_the_same_response() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let playlist = engine.get(PLAYLISTS[0]).unwrap().text();
    let segment = references(&playlist).into_iter().find(|r| r.matches('.').count() == 1).unwrap();
    let adaptive = "/live/streams/demo_adaptive.m3u8";
    for path in [
        resolve(PLAYLISTS[0], &segment).as_str(),
        adaptive,
        PLAYLISTS[0],
        PLAYLISTS[1],
        "/live/streams/missing.m3u8",
        "/none/streams/demo.m3u8",
        "/live/streams/demo.mp4",
        "/live/streams/demo/1/1.m4s",
        "/live/streams/demo.m3u8?_HLS_msn=x",
    ] {
        let ask = |headers: &[(&str, &str)]| {
            let response = http::request(engine.http(), "GET", path, headers, b"").unwrap();
            let is_playlist = response.status == 200 && PLAYLISTS.contains(&path);
            let changes = |name: &str| name == "date" || (is_playlist && name == "content-length");
            let mut headers: Vec<_> = response.headers.into_iter().filter(|(name, _)| !changes(name)).collect();
            headers.sort_unstable();
            (response.status, headers, if is_playlist { Vec::new() } else { response.body })
        };
        let (short, long) = (ask(&[]), ask(&[("content-length", "0")]));
        assert!(short == long, "{path}: {} {:?} and {} {:?}", short.0, short.1, long.0, long.1);
    }
    assert_eq!(engine.panics(), [""; 0]);
}

#[test]
fn ffmpeg_plays_both_playlists_with_video_and_audio() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    for path in PLAYLISTS {
        let url = engine.http_url(path);
        assert_eq!(probe::codecs(&url).unwrap(), ["aac,audio", "h264,video"]);
        let (frames, volume_db) = probe::decode(&url, 3).unwrap();
        assert!(frames >= 70 && volume_db > -30.0, "{path}: {frames} frames, {volume_db} dB");
    }
}

#[test]
fn blocking_reload_returns_the_requested_part() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    let text = engine.get(PLAYLISTS[0]).unwrap().text();
    let first: u64 = text.split_once("#EXT-X-MEDIA-SEQUENCE:").unwrap().1.lines().next().unwrap().parse().unwrap();
    let next = first + text.matches("#EXTINF:").count() as u64 + 1;
    let reloaded = engine.get(&format!("{}?_HLS_msn={next}&_HLS_part=0", PLAYLISTS[0])).unwrap();
    assert_eq!(reloaded.status, 200);
    assert!(reloaded.text().contains(&format!("/{next}.0.m4s")), "no part 0 of {next}: {}", reloaded.text());
}

/// The URIs of one tag, in order.
fn tag_references(text: &str, tag: &str) -> Vec<String> {
    text.lines().filter(|l| l.starts_with(tag)).flat_map(references).collect()
}

#[test]
fn hinted_part_is_served_once_complete_with_its_final_bytes() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    for path in PLAYLISTS {
        let mut early = 0;
        for _ in 0..5 {
            let before = engine.get(path).unwrap().text();
            let [hint] = &tag_references(&before, "#EXT-X-PRELOAD-HINT:")[..] else {
                panic!("not exactly one hint: {before}")
            };
            assert!(!tag_references(&before, "#EXT-X-PART:").contains(hint), "{hint} is already listed: {before}");
            let hinted = engine.get(&resolve(path, hint)).unwrap();
            assert_eq!(hinted.status, 200, "{hint}: {}", hinted.text());
            assert!(hinted.body.len() > 100 && hinted.body[4..8] == *b"moof", "{hint} is not a part");
            let after = engine.get(path).unwrap().text();
            assert!(
                tag_references(&after, "#EXT-X-PART:").contains(hint),
                "{hint} was served before it was complete: {after}"
            );
            let again = engine.get(&resolve(path, hint)).unwrap();
            assert_eq!((again.status, again.body == hinted.body), (200, true), "{hint} has different bytes later");
            early += usize::from(before != after);
        }
        assert_eq!(early, 5, "{path}: responses did not wait for the part");
    }
}

#[test]
fn gstreamer_plays_both_playlists_with_video_and_audio() {
    let Some(launch) = tools::find_program("gst-launch-1.0") else { return };
    let Some((engine, _publisher)) = start_live_stream() else { return };
    for (path, demuxer) in PLAYLISTS.into_iter().flat_map(|path| [(path, "hlsdemux"), (path, "hlsdemux2")]) {
        if !tools::has_gst_element(demuxer) {
            tools::skip_missing(&format!("GStreamer's {demuxer} is not installed"));
            continue;
        }
        // hlsdemux2 fetches by itself and needs stream-aware elements.
        let source = match demuxer {
            "hlsdemux" => format!("souphttpsrc location={} ! hlsdemux ! decodebin name=d", engine.http_url(path)),
            _ => format!("uridecodebin3 name=d uri={}", engine.http_url(path)),
        };
        let pipeline = format!(
            "{source} d. ! video/x-raw ! queue ! fakesink name=video silent=false sync=false \
             d. ! audio/x-raw ! queue ! fakesink name=audio silent=false sync=false"
        );
        let player = Process::start(Command::new(&launch).arg("-v").args(pipeline.split_whitespace())).unwrap();
        let mut seen = [0; 2];
        wait::until(&format!("{demuxer} to decode three seconds of {path}"), || {
            let lines = player.lines();
            let count = |sink: &str| lines.iter().filter(|l| l.contains(sink) && l.contains("= chain")).count();
            seen = [count("GstFakeSink:video"), count("GstFakeSink:audio")];
            (seen[0] >= 75 && seen[1] >= 100).then_some(())
        })
        .unwrap_or_else(|e| panic!("{e:#}: {seen:?}: {:?}", player.lines().iter().rev().take(10).collect::<Vec<_>>()));
        if demuxer == "hlsdemux2" {
            player.wait_line("GstHLSDemux2:").unwrap();
        }
        let errors: Vec<_> = player.lines().into_iter().filter(|l| l.starts_with("ERROR")).collect();
        assert_eq!(errors, [""; 0], "{demuxer} on {path}");
    }
}

#[test]
fn invalid_requests_are_answered_with_a_message() {
    let Some((engine, _publisher)) = start_live_stream() else { return };
    engine.get(PLAYLISTS[0]).unwrap();
    for (path, status, code) in [
        ("/live/streams/demo.m3u8?_HLS_msn=x", 400, "bad_request"),
        ("/live/streams/demo.m3u8?_HLS_part=1", 400, "bad_request"),
        ("/live/streams/demo.m3u8?_HLS_msn=99999999999", 400, "bad_request"),
        ("/live/streams/nobody.m3u8", 404, "stream_not_found"),
        ("/nowhere/streams/demo.m3u8", 404, "app_not_found"),
        ("/live/streams/demo/1/1.m4s", 404, "segment_not_found"),
        ("/live/streams/demo/../../../etc/passwd", 404, "not_found"),
        ("/live/streams/%2e%2e%2f%2e%2e%2fetc%2fpasswd.m3u8", 400, "bad_request"),
    ] {
        let response = engine.get(path).unwrap();
        let body: headwater_api::error::ErrorBody = response.json().unwrap();
        assert_eq!((response.status, body.error.as_str()), (status, code), "{path}: {}", body.message);
        assert!(body.message.ends_with('.'), "{path}: {}", body.message);
    }
}
