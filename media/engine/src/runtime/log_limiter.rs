//! Limits the log lines that one client can cause.
//!
//! Each pair of message and peer may write `MAX_LINES` lines per `WINDOW`; a later line says
//! how many were left out. Metrics count everything. A peer is an IPv4 address or an IPv6 network
//! of 64 bits. Must not know what happened.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one message and peer per [`WINDOW`].
const MAX_LINES: u64 = 100;
const WINDOW: Duration = Duration::from_secs(10);
/// Pairs of message and peer that are counted separately. Beyond it, all further peers of a message
/// share one count.
const MAX_PEERS: usize = 1_024;

/// Counts log lines by message and peer.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_key: HashMap<Key, Count>,
    next_sweep: Option<Instant>,
}

/// A message, and a peer unless its lines are counted together with those of other peers.
type Key = (&'static str, Option<IpAddr>);

#[derive(Debug)]
struct Count {
    window_started_at: Instant,
    lines: u64,
    left_out: u64,
}

impl LogLimiter {
    /// Returns false if a line with this message, caused by this peer, must be left out. Writes how
    /// many lines were left out before. Without a peer, all lines with the message are counted
    /// together.
    pub fn admits(&self, message: &'static str, peer: impl Into<Option<IpAddr>>) -> bool {
        let (admitted, left_out) = self.lock().admit(Instant::now(), message, peer.into());
        for ((line, peer), left_out) in left_out {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            log::warn!(line, peer = peer.as_str(), left_out; "log lines left out");
        }
        admitted
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Returns whether the line is written, and the counts of lines left out that are to be
    /// reported now: before a line with the same key, or because nothing followed within a window.
    fn admit(&mut self, now: Instant, message: &'static str, peer: Option<IpAddr>) -> (bool, Vec<(Key, u64)>) {
        let mut left_out = Vec::new();
        if self.next_sweep.is_none_or(|at| now >= at) {
            self.next_sweep = Some(now + WINDOW);
            let ended = self.by_key.extract_if(|_, count| now >= count.window_started_at + WINDOW);
            left_out.extend(ended.map(|(key, count)| (key, count.left_out)).filter(|(_, lines)| *lines > 0));
        }
        let mut key = (message, peer.map(network));
        if self.by_key.len() >= MAX_PEERS && !self.by_key.contains_key(&key) {
            key.1 = None;
        }
        let count = self.by_key.entry(key).or_insert(Count { window_started_at: now, lines: 0, left_out: 0 });
        if now >= count.window_started_at + WINDOW {
            if count.left_out > 0 {
                left_out.push((key, count.left_out));
            }
            *count = Count { window_started_at: now, lines: 0, left_out: 0 };
        }
        let admitted = count.lines < MAX_LINES;
        count.lines += u64::from(admitted);
        count.left_out += u64::from(!admitted);
        (admitted, left_out)
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_limit_are_left_out_per_message_and_peer() {
        let limiter = LogLimiter::default();
        let flood = |message, peer| (0..1_000).filter(|_| limiter.admits(message, ip(peer))).count();
        assert_eq!(flood("refused", "192.0.2.1"), 100);
        assert_eq!(flood("refused", "192.0.2.2"), 100, "another peer");
        assert_eq!(flood("closed", "192.0.2.1"), 100, "another message");
        assert_eq!(flood("refused", "::ffff:192.0.2.1"), 0, "the same peer");
        tokio::time::advance(WINDOW).await;
        assert_eq!(flood("refused", "192.0.2.1"), 100);
    }

    #[test]
    fn lines_left_out_are_reported_once_even_if_the_peer_writes_no_more() {
        let (start, mut counts) = (Instant::now(), Counts::default());
        let (first, other) = (Some(ip("192.0.2.1")), Some(ip("192.0.2.2")));
        for _ in 0..250 {
            assert_eq!(counts.admit(start, "refused", first).1, []);
            assert_eq!(counts.admit(start + WINDOW / 2, "refused", other).1, []);
        }
        let later = counts.admit(start + WINDOW, "closed", other);
        assert_eq!(later, (true, vec![(("refused", first), 150)]));
        assert_eq!(counts.admit(start + WINDOW, "refused", first), (true, vec![]), "reported already");
        let same = counts.admit(start + WINDOW * 3 / 2, "refused", other);
        assert_eq!(same, (true, vec![(("refused", other), 150)]));
    }

    #[tokio::test(start_paused = true)]
    async fn ipv6_addresses_of_one_network_are_one_peer() {
        let limiter = LogLimiter::default();
        let written = (0..1_000_u16).filter(|n| limiter.admits("refused", ip(&format!("2001:db8::{n:x}"))));
        assert_eq!(written.count(), 100);
        assert!(limiter.admits("refused", ip("2001:db8:0:1::1")));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_and_lines_are_bounded_for_any_number_of_peers() {
        let limiter = LogLimiter::default();
        let written = (0..100_000_u32).filter(|n| limiter.admits("refused", IpAddr::from(n.to_be_bytes())));
        assert_eq!(written.count(), MAX_PEERS + 100);
        assert!(limiter.lock().by_key.len() <= MAX_PEERS + 1);
        tokio::time::advance(WINDOW).await;
        limiter.admits("refused", ip("192.0.2.1"));
        assert_eq!(limiter.lock().by_key.len(), 1, "ended windows are removed");
    }
}
