//! The health listener: silent connections and floods of requests. `headwaterd` must not take them
//! for a hanging engine, and a program of the same machine still gets an answer.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::attacker::{attacker, connect_from};
use crate::node::Node;
use crate::target::{Setup, Target};

/// Longer than any probe takes on a busy machine, and shorter than the probes of an operator wait.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(3);

/// Requests `/readyz` from the same machine, until `duration` has passed. Returns the number of
/// answers and the slowest one.
fn probe_from_loopback(node: &Node, duration: Duration) -> anyhow::Result<(u32, Duration)> {
    let (started, mut answers, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while started.elapsed() < duration {
        let asked = Instant::now();
        ensure!(node.is_ready(), "not ready, or no answer: {:?}", node.readiness());
        slowest = slowest.max(asked.elapsed());
        answers += 1;
        std::thread::park_timeout(Duration::from_millis(200));
    }
    ensure!(slowest < MAX_ANSWER_TIME, "an answer took {slowest:?}");
    Ok((answers, slowest))
}

/// 200 connections that send nothing; those that the node closes are opened again. For longer than
/// the watchdog waits for a hanging engine in a long run.
pub(super) fn silent(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    const CONNECTIONS: usize = 200;
    let duration = setup.scale(Duration::from_secs(12), Duration::from_secs(45));
    target.withstand(|node| {
        let (at, stop) = (node.remote_health(), AtomicBool::new(false));
        let ((answers, slowest), opened) = std::thread::scope(|scope| {
            let attack = scope.spawn(|| {
                let (mut rounds, mut opened) = (VecDeque::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let round = (0..CONNECTIONS).map(|n| connect_from(attacker(n % 4), at));
                    rounds.push_back(round.collect::<anyhow::Result<Vec<_>>>()?);
                    opened += CONNECTIONS;
                    if rounds.len() > 3 {
                        rounds.pop_front();
                    }
                    std::thread::park_timeout(Duration::from_millis(500));
                }
                anyhow::Ok(opened)
            });
            let probed = probe_from_loopback(node, duration);
            stop.store(true, Ordering::Relaxed);
            let opened = attack.join().ok().context("the attack panicked")??;
            anyhow::Ok((probed?, opened))
        })?;
        let slowest_ms = slowest.as_millis();
        Ok(format!("{opened} connections in {} s; {answers} answers, at most {slowest_ms} ms", duration.as_secs()))
    })
}

/// Requests for `/readyz` from eight addresses as fast as they are answered.
pub(super) fn readyz_flood(setup: &Setup, target: &mut Target) -> anyhow::Result<String> {
    let duration = setup.scale(Duration::from_secs(4), Duration::from_secs(20));
    target.withstand(|node| {
        let (at, stop, flooded) = (node.remote_health(), AtomicBool::new(false), AtomicU64::new(0));
        let probed = node.metric("headwater_http_connections_accepted_total")?;
        let (answers, slowest) = std::thread::scope(|scope| {
            for n in 0..8 {
                let (stop, flooded) = (&stop, &flooded);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(mut socket) = connect_from(attacker(n), at) else { continue };
                        let mut buffer = [0; 8_192];
                        // Until the node closes the connection.
                        while !stop.load(Ordering::Relaxed)
                            && socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: node\r\n\r\n").is_ok()
                            && socket.read(&mut buffer).is_ok_and(|read| read > 0)
                        {
                            flooded.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let probed = probe_from_loopback(node, duration);
            stop.store(true, Ordering::Relaxed);
            probed
        })?;
        let flooded = flooded.into_inner();
        ensure!(flooded > 100, "only {flooded} requests were answered");
        // Each round of probes opens one connection over HTTP and one over HTTPS, and there are two
        // rounds in a second at most.
        let rounds = (node.metric("headwater_http_connections_accepted_total")? - probed) / 2.0;
        let max_rounds = 2.0 * duration.as_secs_f64() + 10.0;
        ensure!(rounds <= max_rounds, "{rounds} rounds of probes for {flooded} requests");
        let slowest_ms = slowest.as_millis();
        Ok(format!("{flooded} requests, {rounds} rounds of probes; {answers} answers, at most {slowest_ms} ms"))
    })
}
