//! Tests of HLS under a play policy: what a request with a token gets, what a session and a
//! signature admit to, and until when.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_api::StreamName;
use headwater_api::documents::{AppDocument, Policy};
use headwater_api::secret::Secret;
use headwater_wire::codec::aac;
use headwater_wire::{Frame, MediaTime};

use super::find::{CacheControl, HlsContent, find};
use super::path::HlsPath;
use super::request::HlsRequest;
use crate::access::test_tokens::{KEY, play_token};
use crate::http::error::Problem;
use crate::http::test_node::TestNode;

/// Duration of an AAC frame at 48 kHz.
const FRAME_INTERVAL: Duration = Duration::from_micros(21_333);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Publishes audio until the test ends. Time passes whenever a request waits.
fn publish_audio(node: &TestNode, name: &str) {
    let mut producer = node.hub.publish(&StreamName::parse(name).unwrap(), "rtmp").unwrap();
    let track = Arc::new(aac::track(Bytes::from_static(&[0x11, 0x90])).unwrap());
    producer.announce(&track);
    tokio::spawn(async move {
        for n in 0.. {
            let at = MediaTime::from_ticks(n * 1_024, 48_000);
            let payload = Bytes::from_static(b"audio");
            producer.send(Frame { track: Arc::clone(&track), dts: at, pts: at, key: true, payload });
            tokio::time::sleep(FRAME_INTERVAL).await;
        }
    });
}

fn protected() -> AppDocument {
    AppDocument { play: Policy::Jwt, jwt_key: Some(Secret::new(KEY)), ..AppDocument::open("live") }
}

async fn get(node: &TestNode, uri: &str) -> Result<HlsContent, Problem> {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let path = HlsPath::parse(path).unwrap_or_else(|| panic!("{uri} is no path of HLS"));
    find(&node.state, request(path, query)).await
}

fn request<'a>(path: HlsPath<'a>, query: Option<&'a str>) -> HlsRequest<'a> {
    HlsRequest { path, query, authorization: None, viewer: 1, client: CLIENT, is_head: false }
}

async fn text(node: &TestNode, uri: &str) -> (String, CacheControl) {
    let content = get(node, uri).await.unwrap_or_else(|e| panic!("{uri}: {e:?}"));
    (String::from_utf8(content.pieces().concat()).unwrap(), content.cache_control())
}

async fn code(node: &TestNode, uri: &str) -> &'static str {
    get(node, uri).await.map_or_else(|e| e.code().as_str(), |_| "ok")
}

/// The URIs of a playlist: its lines, and those in tags.
fn uris(playlist: &str) -> Vec<String> {
    let in_tags = playlist.lines().filter_map(|line| Some(line.split_once("URI=\"")?.1.split_once('"')?.0));
    let lines = playlist.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.chain(in_tags).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn token_leads_to_a_session_and_the_session_to_signed_media() {
    let node = TestNode::new();
    publish_audio(&node, "live/a");
    node.state.access.set_policies(vec![protected()], &[]);
    let token = play_token("a", 4_000_000_000);
    for (entry, folder) in [
        ("/live/streams/a.m3u8", "/live/streams/"),
        ("/live/streams/a_adaptive.m3u8", "/live/streams/"),
        ("/live/streams/a/playlist.m3u8", "/live/streams/a/"),
    ] {
        assert_eq!(code(&node, entry).await, "token_missing");
        let (playlist, cache) = text(&node, &format!("{entry}?token={token}")).await;
        assert!(playlist.contains("#EXT-X-STREAM-INF") && cache == CacheControl::Private, "{playlist}");
        assert!(!playlist.contains(&token));
        let media_uri = format!("{folder}{}", uris(&playlist)[0]);
        let (media, cache) = text(&node, &media_uri).await;
        assert!(media.contains("#EXTINF") && cache == CacheControl::Private, "{media}");
        assert!(!media.contains("session="), "it is the same for all viewers: {media}");
        let media_uris = uris(&media);
        assert!(media_uris.len() > 5 && media_uris.iter().all(|uri| uri.contains("?sig=")), "{media_uris:?}");
        let segment = media_uris.iter().find(|uri| uri.contains("m4s")).unwrap();
        for uri in [segment, media_uris.iter().find(|uri| uri.contains("init-")).unwrap()] {
            let content = get(&node, &format!("{folder}{uri}")).await.unwrap();
            assert!(matches!(content.cache_control(), CacheControl::Signed(60..=120)), "{:?}", content.cache_control());
            let (path, _) = uri.split_once('?').unwrap();
            assert_eq!(code(&node, &format!("{folder}{path}")).await, "signature_invalid");
            assert_eq!(code(&node, &format!("{folder}{path}?token={token}")).await, "signature_invalid");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bearer_token_is_as_good_as_one_in_the_query_and_a_session_precedes_it() {
    let node = TestNode::new();
    publish_audio(&node, "live/a");
    node.state.access.set_policies(vec![protected()], &[]);
    let header = format!("Bearer {}", play_token("a", 4_000_000_000));
    let get = async |uri: &str, authorization: Option<&str>| {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        let request = HlsRequest { authorization, ..request(HlsPath::parse(path).unwrap(), query) };
        let content = find(&node.state, request).await.map_err(|e| e.code().as_str())?;
        Ok::<_, &str>(String::from_utf8(content.pieces().concat()).unwrap())
    };
    assert_eq!(get("/live/streams/a.m3u8", Some("Bearer x")).await, Err("token_invalid"));
    assert_eq!(get("/live/streams/a.m3u8", Some("Basic eDp5")).await, Err("token_missing"));
    let entry = get("/live/streams/a.m3u8", Some(&header)).await.unwrap();
    let media_uri = format!("/live/streams/{}", uris(&entry)[0]);
    for authorization in [None, Some(header.as_str()), Some("Bearer of a token that has expired")] {
        assert!(get(&media_uri, authorization).await.unwrap().contains("?sig="), "{authorization:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn playlist_with_signed_urls_is_rendered_once_for_all_viewers() {
    let node = TestNode::new();
    publish_audio(&node, "live/a");
    node.state.access.set_policies(vec![protected()], &[]);
    let mut playlists = Vec::new();
    for exp in [4_000_000_000, 4_000_000_001] {
        let (entry, _) = text(&node, &format!("/live/streams/a.m3u8?token={}", play_token("a", exp))).await;
        let media_uri = format!("/live/streams/{}", uris(&entry)[0]);
        playlists.push((media_uri.clone(), get(&node, &media_uri).await.unwrap()));
    }
    let [(first_uri, first), (second_uri, second)] = &playlists[..] else { panic!() };
    assert_ne!(first_uri, second_uri, "each viewer has a session of its own");
    assert_eq!(first.pieces()[0].as_ptr(), second.pieces()[0].as_ptr());
}

#[tokio::test(start_paused = true)]
async fn revoked_token_and_closed_app_end_the_session_at_the_playlist() {
    let node = TestNode::new();
    publish_audio(&node, "live/a");
    let access = &node.state.access;
    access.set_policies(vec![protected()], &[]);
    let token = play_token("a", 4_000_000_000);
    let (entry, _) = text(&node, &format!("/live/streams/a.m3u8?token={token}")).await;
    let media_uri = format!("/live/streams/{}", uris(&entry)[0]);
    let (media, _) = text(&node, &media_uri).await;
    let segment = format!("/live/streams/{}", uris(&media)[0]);
    access.set_policies(vec![protected()], &[&token]);
    assert_eq!(code(&node, &media_uri).await, "token_revoked");
    assert_eq!(code(&node, &segment).await, "ok", "until its signature expires");
    access.set_policies(vec![AppDocument { play: Policy::Closed, ..protected() }], &[]);
    assert_eq!((code(&node, &media_uri).await, code(&node, &segment).await), ("app_closed", "app_closed"));
}

#[tokio::test(start_paused = true)]
async fn open_app_has_plain_urls_whatever_the_query_contains() {
    let node = TestNode::new();
    publish_audio(&node, "live/a");
    for query in ["", "?token=x", "?session=x&sig=x"] {
        let (media, cache) = text(&node, &format!("/live/streams/a.m3u8{query}")).await;
        assert!(media.contains("#EXTINF") && !media.contains('?'), "{media}");
        assert_eq!(cache.to_string(), "public, max-age=1");
        let segment = get(&node, &format!("/live/streams/{}{query}", uris(&media)[0])).await.unwrap();
        assert_eq!(segment.cache_control().to_string(), "public, max-age=3600, immutable");
    }
}
