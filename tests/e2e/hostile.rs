//! Hostile peers on the RTMP and HTTP ports do not disturb an independent publisher and player.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use headwater_tests::engine::{Engine, Options};
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait::{self, WAIT_TIMEOUT};

/// Maximum growth of the resident memory after an attack.
const MAX_MEMORY_GROWTH_KIB: u64 = 64 << 10;

/// Runs `attack` while a stream is published and played. Checks that both continue without a gap
/// and that the engine neither panics nor grows.
pub(crate) fn with_running_stream(attack: impl FnOnce(&Engine)) {
    let engine = Engine::start(Options::with(|c| c.rtmp.max_connections = 200.try_into().unwrap())).unwrap();
    let url = engine.rtmp_url("live/demo");
    let Some(publisher) = publish::start_ffmpeg(&Source::default(), &url).unwrap() else { return };
    engine.wait_live("live/demo").unwrap();
    let mut command = publish::ffmpeg_command().unwrap();
    command.args(["-loglevel", "info", "-xerror", "-i", &url, "-vf", "showinfo", "-f", "null", "-"]);
    let player = Process::start(&mut command).unwrap();
    player.wait_line("Parsed_showinfo").unwrap();
    let (before_kib, started) = (engine.resident_kib().unwrap(), engine.status("live/demo").unwrap().unwrap());

    attack(&engine);

    let seen = player.lines().len();
    player.wait_line_from(seen, " n:").unwrap();
    let now = engine.status("live/demo").unwrap().unwrap();
    assert_eq!(now.started_at_ms, started.started_at_ms, "the stream was interrupted");
    assert!(publisher.is_running() && player.is_running());
    assert_eq!(count_gaps(&player.lines()), 0, "the player lost frames");
    let grown_kib = engine.resident_kib().unwrap().saturating_sub(before_kib);
    assert!(grown_kib < MAX_MEMORY_GROWTH_KIB, "the memory grew by {grown_kib} KiB");
    assert_eq!(engine.panics(), [""; 0]);
}

/// Counts the frames that come more than 1.5 frame durations after the previous one, at 25 fps.
fn count_gaps(lines: &[String]) -> usize {
    let time = |l: &String| l.split_once("pts_time:")?.1.split_whitespace().next()?.parse::<f64>().ok();
    let times: Vec<f64> = lines.iter().filter(|l| l.contains(" n:")).filter_map(time).collect();
    times.windows(2).filter(|pair| pair[1] - pair[0] > 0.06).count()
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Connects and performs the simple handshake (RTMP 1.0 §5.2).
fn connect_and_handshake(engine: &Engine) -> TcpStream {
    let mut socket = connect(engine.rtmp());
    let mut hello = vec![7; 1_537];
    hello[0] = 3;
    socket.write_all(&hello).unwrap();
    let mut response = vec![0; 1 + 2 * 1_536];
    socket.read_exact(&mut response).unwrap();
    socket.write_all(&response[1..1_537]).unwrap();
    socket
}

/// Builds a message of type `kind` in chunks of 128 bytes on chunk stream 3.
fn rtmp_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let mut out = vec![3, 0, 0, 0, length[1], length[2], length[3], kind, 0, 0, 0, 0];
    for (i, chunk) in body.chunks(128).enumerate() {
        if i > 0 {
            out.push(0xc3);
        }
        out.extend_from_slice(chunk);
    }
    out
}

fn amf_string(text: &str) -> Vec<u8> {
    [&[2, 0, text.len() as u8], text.as_bytes()].concat()
}

const AMF_NUMBER: [u8; 9] = [0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0];

/// Sends as many bytes as it can; true if the server closes the connection in time.
fn is_closed_by_server(mut socket: TcpStream, bytes: &[u8]) -> bool {
    let _ = socket.write_all(bytes);
    !matches!(socket.read_to_end(&mut Vec::new()), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
}

/// Sends bytes after the handshake and checks that the server closes the connection with this
/// reason, which differs from that of a silent connection.
fn check_refused(engine: &Engine, bytes: &[u8], why: &str) {
    let before = engine.process().line_count();
    let socket = connect_and_handshake(engine);
    // The log may contain an IPv4-mapped IPv6 address, so only the port is compared.
    let peer = format!(":{} ", socket.local_addr().unwrap().port());
    assert!(is_closed_by_server(socket, bytes), "still open: {why}");
    let closed = wait::until("the end of the connection", || {
        let lines = engine.process().lines_from(before);
        lines.into_iter().find(|line| line.contains("rtmp connection closed") && line.contains(&peer))
    });
    let closed = closed.unwrap();
    assert!(closed.contains(why), "not {why:?}: {closed}");
}

#[test]
fn messages_that_crash_other_rtmp_servers_close_only_their_connection() {
    with_running_stream(|engine| {
        let nested = [&amf_string("x")[..], &AMF_NUMBER, &[3, 0, 1, b'a'].repeat(5_000)].concat();
        let huge_array = [&amf_string("x")[..], &AMF_NUMBER, &[10, 0xff, 0xff, 0xff, 0xff]].concat();
        // On ever new chunk streams: messages of one byte, and longer ones that are never
        // completed.
        let whole = |i: u32| [vec![1, i as u8, (i >> 8) as u8, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0], vec![7]].concat();
        let unfinished = |i: u8| [vec![i, 0, 0, 0, 0, 0, 200, 9, 1, 0, 0, 0], vec![7; 128]].concat();
        // The first chunk of a message of `len` bytes on chunk stream `i`.
        let long = |i: u8, len: u32| {
            let [_, a, b, c] = len.to_be_bytes();
            [vec![i, 0, 0, 0, a, b, c, 9, 1, 0, 0, 0], vec![7; 128]].concat()
        };
        for (attack, why) in [
            (rtmp_message(20, &nested), "nested more than"),
            (rtmp_message(17, &[&[0][..], &nested].concat()), "nested more than"),
            (rtmp_message(20, &huge_array), "ends early"),
            (rtmp_message(20, &[]), "no name or no transaction id"),
            (rtmp_message(20, &amf_string("connect")), "no name or no transaction id"),
            (rtmp_message(1, &[0, 0, 0, 0]), "chunk size 0 is outside"),
            (rtmp_message(1, &[0x80, 0, 0, 0]), "chunk size 2147483648 is outside"),
            (vec![4, 0, 0, 0, 0xff, 0xff, 0xff, 9, 1, 0, 0, 0], "message of 16777215 bytes exceeds 65536"),
            // Before a publish is accepted, large messages are refused, one or several together.
            (long(4, 65_537), "message of 65537 bytes exceeds 65536"),
            ([long(4, 40_000), long(5, 40_000)].concat(), "unfinished messages of 80000 bytes in total"),
            ((0..70_000).flat_map(whole).collect(), "chunk streams are in use"),
            ((4..64).flat_map(unfinished).collect(), "messages are interleaved"),
        ] {
            check_refused(engine, &attack, why);
        }
        // Ignored before a publish.
        let mut socket = connect_and_handshake(engine);
        socket.write_all(&rtmp_message(18, &amf_string("@setDataFrame"))).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_closed_by_server(socket, &[]), "still open");
        assert!(is_closed_by_server(connect(engine.rtmp()), b"GET / HTTP/1.1\r\n\r\n"));
    });
}

#[test]
fn command_floods_are_cut_off() {
    with_running_stream(|engine| {
        let connect =
            [&amf_string("connect")[..], &AMF_NUMBER, &[3, 0, 3, b'a', b'p', b'p'], &amf_string("live"), &[0, 0, 9]]
                .concat();
        let create = [&amf_string("createStream")[..], &AMF_NUMBER, &[5]].concat();
        check_refused(engine, &rtmp_message(20, &connect).repeat(50_000), "unexpected connect command");
        let creates = [rtmp_message(20, &connect), rtmp_message(20, &create).repeat(100_000)].concat();
        check_refused(engine, &creates, "more than 8 message streams");
    });
}

#[test]
fn silent_connections_use_only_their_slots() {
    with_running_stream(|engine| {
        let silent: Vec<_> = (0..300).map(|_| connect(engine.rtmp())).collect();
        engine.process().wait_line("too many are open").unwrap();
        drop(silent);
        wait::until("a free connection slot", || {
            let mut socket = connect(engine.rtmp());
            let mut hello = vec![7; 1_537];
            hello[0] = 3;
            socket.write_all(&hello).ok()?;
            socket.read_exact(&mut [0; 3_073]).ok()
        })
        .unwrap();
    });
}

#[test]
fn http_refuses_oversized_heads_oversized_bodies_and_garbage() {
    with_running_stream(|engine| {
        let response = |bytes: &[u8]| {
            let mut socket = connect(engine.http());
            let _ = socket.write_all(bytes);
            let mut text = Vec::new();
            let _ = socket.read_to_end(&mut text);
            String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
        };
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(100_000));
        assert!(response(long.as_bytes()).contains("431"), "{}", response(long.as_bytes()));
        let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(500));
        assert!(response(many.as_bytes()).contains("431"), "{}", response(many.as_bytes()));
        // The server does not read the rest of a body that is too long. It discards it while it
        // closes the connection, or unread bytes would reset the connection and discard the
        // response (RFC 9112 §9.6).
        let head = "POST /live/whep/demo HTTP/1.1\r\nhost: x\r\ncontent-type: application/sdp\r\nconnection: close\r\n";
        let oversized = [format!("{head}content-length: {}\r\n\r\n", 1 << 20).as_bytes(), &[b'v'; 1 << 20]].concat();
        let first = response(&oversized);
        assert!(first.contains("413"), "{first:?}");
        let headers = [("content-type", "application/sdp")];
        let bad = headwater_tests::http::request(engine.http(), "POST", "/live/whep/demo", &headers, b"v=0").unwrap();
        assert_eq!(bad.status, 400);
        assert!(response(b"\x00\x01\x02\x03 garbage\r\n\r\n").contains("400"));
        for path in ["/assets/../../etc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd", "/assets//etc/passwd"] {
            let first = response(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
            assert!(first.contains("404") || first.contains("400"), "{path}: {first}");
        }
        // A pipeline of 2,000 requests from a client that disconnects without reading.
        let _ = connect(engine.http()).write_all(&b"GET /rest/v2/streams HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2_000));
    });
}

#[test]
fn unfinished_request_head_times_out() {
    with_running_stream(|engine| {
        let sockets: Vec<_> = (0..50)
            .map(|_| {
                let mut socket = connect(engine.http());
                socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").unwrap();
                socket
            })
            .collect();
        assert_eq!(engine.get("/rest/v2/version").unwrap().status, 200);
        for socket in sockets {
            assert!(is_closed_by_server(socket, b""), "still open");
        }
    });
}
