//! Guesses at a publish key and at tokens, over RTMP, HLS and WHEP, from one address and from many.
//! Who has the right ones gets in from other addresses all the time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::administrator::Administrator;
use headwater_tests::http;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::rtmp::RtmpClient;
use serde_json::json;

use crate::attacker::{attacker, connect_from, newcomer};
use crate::canary::WhepViewer;
use crate::node::Node;
use crate::target::{Setup, Target};

const PUBLISH_KEY: &str = "the-right-publish-key";
/// A stream that is published with a key and played with a JSON web token.
const GUARDED: &str = "guarded";
/// A stream that is played with a one-time token: each guess is a call of the registry.
const ONCE: &str = "once";
/// Of one address, before it is throttled.
const MAX_GUESSES: usize = 30;
/// Requests that are sent at once on a connection.
const PIPELINED: usize = 25;
const THREADS: usize = 8;

/// Answers to guesses.
#[derive(Debug, Default)]
struct Tally {
    /// Guesses that were compared with the right key or token.
    checked: AtomicUsize,
    /// Guesses that were refused without a comparison.
    throttled: AtomicUsize,
}

impl Tally {
    fn add(&self, status: u16) -> anyhow::Result<()> {
        let counter = match status {
            403 => &self.checked,
            429 => &self.throttled,
            _ => anyhow::bail!("a guess was answered with {status}"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn counts(&self) -> (usize, usize) {
        (self.checked.load(Ordering::Relaxed), self.throttled.load(Ordering::Relaxed))
    }
}

/// Protects both streams and publishes them.
fn protect(node: &Node) -> anyhow::Result<[Process; 2]> {
    administrator(node)?.change_app("live", |app| {
        app["publish_key"] = json!(PUBLISH_KEY);
        app["jwt_key"] = json!("an HS256 key that nobody will guess");
        app["streams"] = json!({ GUARDED: { "publish": "key", "play": "jwt" }, ONCE: { "play": "one_time_token" } });
    })?;
    let source = Source { width: 160, height: 90, fps: 10, gop: 10, ..Source::default() };
    let publish = |id: String| {
        let url = format!("rtmp://{}/live/{id}", node.rtmp());
        publish::start_ffmpeg(&source, &url)?.context("ffmpeg is not installed")
    };
    let publishers = [publish(format!("{GUARDED}?key={PUBLISH_KEY}"))?, publish(ONCE.to_owned())?];
    for id in [GUARDED, ONCE] {
        let has_media = |status: &headwater_api::rest::StreamStatus| status.video.is_some();
        headwater_tests::engine::wait_status(node.http(), &format!("live/{id}"), "video", has_media)?;
    }
    Ok(publishers)
}

fn administrator(node: &Node) -> anyhow::Result<Administrator> {
    Administrator::of(node.http(), node.data_dir())
}

/// A request with the guess of this number: at a JSON web token over HLS or WHEP, or at a one-time
/// token over HLS. (Over WHEP, that is looked up after the whole offer only.)
fn request(n: usize) -> String {
    // {"alg":"HS256"} and {"type":"play","exp":4000000000}, with a signature of 32 bytes.
    let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJ0eXBlIjoicGxheSIsImV4cCI6NDAwMDAwMDAwMH0.{n:042}A");
    let head = match n % 3 {
        0 => format!("GET /live/streams/{GUARDED}.m3u8?token={jwt} HTTP/1.1\r\n"),
        1 => format!("GET /live/streams/{ONCE}.m3u8?token=guess-{n} HTTP/1.1\r\n"),
        _ => format!("POST /live/whep/{GUARDED}?token={jwt} HTTP/1.1\r\ncontent-length: 0\r\n"),
    };
    format!("{head}host: node\r\n\r\n")
}

/// Guesses `count` times from one address, over HTTP.
fn guess_over_http(from: Ipv4Addr, server: SocketAddr, count: usize, tally: &Tally) -> anyhow::Result<()> {
    let mut connection = BufReader::new(connect_from(from, server)?);
    let mut sent = 0;
    while sent < count {
        let batch = sent..count.min(sent + PIPELINED);
        let requests: String = batch.clone().map(request).collect();
        connection.get_mut().write_all(requests.as_bytes())?;
        for _ in batch {
            tally.add(read_response(&mut connection)?)?;
            sent += 1;
        }
    }
    Ok(())
}

/// Reads a response to its end, and returns its status.
fn read_response(connection: &mut BufReader<TcpStream>) -> anyhow::Result<u16> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(connection.read_line(&mut head)? > 0, "the connection was closed after {head:?}");
    }
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.context("no content-length")?];
    connection.read_exact(&mut body)?;
    Ok(status)
}

/// Guesses the publish key `count` times from one address, each time on a new connection.
fn guess_over_rtmp(from: Ipv4Addr, server: SocketAddr, count: usize) -> anyhow::Result<()> {
    for n in 0..count {
        let socket = connect_from(from, server)?;
        let refusal = match RtmpClient::publisher_on(socket, "live", &format!("{GUARDED}?key=guess-{n}")) {
            Ok(_) => anyhow::bail!("a guess of the publish key was accepted"),
            Err(e) => format!("{e:#}"),
        };
        ensure!(refusal.contains("NetStream.Publish.Unauthorized"), "{refusal}");
    }
    Ok(())
}

/// Viewers with the right token, until `is_over`. Returns their number, and the longest time that
/// one of them waited.
fn play_beside(node: &Node, token: &str, is_over: &AtomicBool) -> anyhow::Result<(usize, Duration)> {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) || count == 0 {
        let from = newcomer(20 + (count % 100) as u8);
        let started = Instant::now();
        let path = format!("/live/streams/{GUARDED}.m3u8?token={token}");
        let playlist = http::request_on(connect_from(from, node.http())?, "GET", &path, &[], b"")?;
        ensure!(playlist.status == 200, "a viewer with its token: {} {}", playlist.status, playlist.text());
        let id = format!("{GUARDED}?token={token}");
        RtmpClient::player_on(connect_from(from, node.rtmp())?, "live", &id)?.next_video()?;
        longest = longest.max(started.elapsed());
        count += 1;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    Ok((count, longest))
}

/// Guesses from one address, and then from many, some times each.
fn guess(setup: &Setup, node: &Node, one: &Tally, many: &Tally) -> anyhow::Result<usize> {
    let (http, rtmp) = (node.http(), node.rtmp());
    let rtmp_guesses = setup.scale(60, 2_000);
    guess_over_http(attacker(0), http, setup.scale(600, 300_000), one)?;
    guess_over_rtmp(attacker(0), rtmp, rtmp_guesses)?;
    let (addresses, each) = (setup.scale(400, 24_000), setup.scale(40, 30));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for n in (thread..addresses).step_by(THREADS) {
                        guess_over_http(attacker(1 + n), http, each, many)?;
                        if n % 20 == 0 {
                            guess_over_rtmp(attacker(1 + n), rtmp, 1)?;
                        }
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a guesser panicked")?)
    })?;
    let (checked, _) = many.counts();
    ensure!(checked <= addresses * (MAX_GUESSES + 1), "{checked} guesses of {addresses} addresses were checked");
    Ok(rtmp_guesses + addresses.div_ceil(20))
}

/// Guesses from one address and from many; a million of them in the long form.
pub(super) fn keys_and_tokens(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    let _publishers = protect(target.node())?;
    let administrator = administrator(target.node())?;
    let token = administrator.make_play_token("live", GUARDED, "jwt")?;
    let one_time = administrator.make_play_token("live", ONCE, "one_time")?;
    target.withstand(|node| {
        let (one, many, is_over) = (Tally::default(), Tally::default(), AtomicBool::new(false));
        let started = Instant::now();
        let (rtmp_guesses, (viewers, longest)) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| play_beside(node, &token, &is_over));
            let guessed = guess(setup, node, &one, &many);
            is_over.store(true, Ordering::Relaxed);
            let played = beside.join().ok().context("a viewer panicked")??;
            anyhow::Ok((guessed?, played))
        })?;
        let took = started.elapsed();
        let ((checked, throttled), (checked_of_many, throttled_of_many)) = (one.counts(), many.counts());
        // One more every two seconds.
        let max_checked = MAX_GUESSES + took.as_secs() as usize / 2 + 1;
        ensure!(checked <= max_checked && throttled > 0, "{checked} guesses of one address were checked in {took:?}");
        let refused = node.metric("headwater_access_refused_total")?;
        let total = checked + throttled + checked_of_many + throttled_of_many + rtmp_guesses;
        ensure!(refused >= total as f64, "{refused} of {total} refusals were counted");
        // Also over WHEP, and with a one-time token that was guessed at.
        let whep = format!("{GUARDED}?token={token}");
        let first_packet_ms = WhepViewer::start(node.http(), &whep, newcomer(5).into())?.wait_playing()?;
        let path = format!("/live/streams/{ONCE}.m3u8?token={one_time}");
        let admitted = http::request_on(connect_from(newcomer(6), node.http())?, "GET", &path, &[], b"")?;
        ensure!(admitted.status == 200, "the one-time token: {} {}", admitted.status, admitted.text());
        Ok(format!(
            "{total} guesses in {:.0} s; of one address {checked} checked, {throttled} refused unchecked; of many \
             {checked_of_many} and {throttled_of_many}; {viewers} viewers beside, the slowest {} ms; WHEP {:.0} ms",
            took.as_secs_f64(),
            longest.as_millis(),
            first_packet_ms
        ))
    })
}
