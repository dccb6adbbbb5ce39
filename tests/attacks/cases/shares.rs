//! One address that takes as many stream names and RTMP connections as it can.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use headwater_tests::rtmp::RtmpClient;

use crate::attacker::{attacker, connect_from, newcomer};
use crate::target::{CANARY_ID, MAX_STREAMS, Setup, Target};

/// More publishers from one address than there are names: another address still publishes.
pub(super) fn stream_names(_: &Setup, target: &mut Target) -> anyhow::Result<String> {
    target.withstand(|node| {
        let mut publishers = Vec::new();
        for n in 0..2 * MAX_STREAMS {
            let socket = connect_from(attacker(0), node.rtmp())?;
            publishers.extend(RtmpClient::publisher_on(socket, "live", &format!("name-{n}")));
        }
        let taken = publishers.len();
        ensure!((1..MAX_STREAMS).contains(&taken), "one address took {taken} of {MAX_STREAMS} names");
        let socket = connect_from(newcomer(2), node.rtmp())?;
        RtmpClient::publisher_on(socket, "live", "another").context("another address")?;
        Ok(format!("one address took {taken} of {MAX_STREAMS} names"))
    })
}

/// Connections that send only pings (RTMP 1.0 §7.1.7) after the handshake, from one address: others
/// still publish and play. In a long run: they are closed.
pub(super) fn idle_rtmp(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const CONNECTIONS: usize = 200;
    /// A user control message: ping request with a timestamp of 0, on chunk stream 2.
    const PING: [u8; 18] = [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0];
    const ROLE_TIMEOUT: Duration = Duration::from_secs(60);
    let duration = setup.scale(Duration::from_secs(3), ROLE_TIMEOUT + Duration::from_secs(15));
    target.withstand(|node| {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut socket = connect_from(attacker(0), node.rtmp())?;
            let mut hello = vec![7; 1_537];
            hello[0] = 3;
            socket.write_all(&hello)?;
            let mut response = vec![0; 1 + 2 * 1_536];
            socket.read_exact(&mut response)?;
            socket.write_all(&response[1..1_537])?;
            socket.set_nonblocking(true)?;
            open.push(socket);
        }
        let started = Instant::now();
        while started.elapsed() < duration && !open.is_empty() {
            open.retain_mut(|socket| {
                let is_open = socket.write_all(&PING).is_ok();
                // Discards the answers; 0 bytes: closed by the server.
                is_open && !matches!(socket.read(&mut [0; 4_096]), Ok(0))
            });
            std::thread::park_timeout(Duration::from_millis(250));
        }
        ensure!(!setup.long || open.is_empty(), "{} connections are open after {duration:?}", open.len());
        RtmpClient::publisher_on(connect_from(newcomer(3), node.rtmp())?, "live", "beside-idle")?;
        RtmpClient::player_on(connect_from(newcomer(3), node.rtmp())?, "live", CANARY_ID)?.next_video()?;
        Ok(format!("{} of {CONNECTIONS} connections open after {:.0} s", open.len(), started.elapsed().as_secs_f64()))
    })
}
