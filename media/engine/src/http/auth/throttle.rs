//! Limits the rate of login attempts, per address and in total.
//!
//! Uses token buckets. An attempt takes a token from both buckets, and a successful one returns it.
//! Addresses with a recent successful login ignore the total limit, so that an attacker cannot lock
//! out the administrator from another address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The login attempts of one node.
#[derive(Debug)]
pub(super) struct Throttle {
    global: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
    trusted: Vec<(IpAddr, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    refilled_at: Instant,
}

impl Bucket {
    fn refilled(self, now: Instant, size: f64, every: Duration) -> Self {
        let more = now.saturating_duration_since(self.refilled_at).as_secs_f64() / every.as_secs_f64();
        Self { tokens: (self.tokens + more).min(size), refilled_at: now }
    }
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            global: Bucket { tokens: GLOBAL_BURST, refilled_at: now },
            addresses: HashMap::new(),
            trusted: Vec::new(),
        }
    }

    /// Counts an attempt. Returns the time until the next one is allowed if the limit is reached.
    pub(super) fn attempt(&mut self, now: Instant, address: IpAddr) -> Result<(), Duration> {
        let address = network(address);
        self.global = self.global.refilled(now, GLOBAL_BURST, GLOBAL_REFILL_INTERVAL);
        let trusted = self
            .trusted
            .iter()
            .any(|(a, trusted_at)| *a == address && now.saturating_duration_since(*trusted_at) < TRUST_DURATION);
        if self.global.tokens < 1.0 && !trusted {
            return Err(GLOBAL_REFILL_INTERVAL.mul_f64(1.0 - self.global.tokens));
        }
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses
                .retain(|_, b| b.refilled(now, ADDRESS_BURST, ADDRESS_REFILL_INTERVAL).tokens < ADDRESS_BURST);
            if self.addresses.len() >= MAX_ADDRESSES {
                // This many addresses are one attacker, whom the total limit stops.
                self.addresses.clear();
            }
        }
        let bucket = self.addresses.entry(address).or_insert(Bucket { tokens: ADDRESS_BURST, refilled_at: now });
        *bucket = bucket.refilled(now, ADDRESS_BURST, ADDRESS_REFILL_INTERVAL);
        if bucket.tokens < 1.0 {
            return Err(ADDRESS_REFILL_INTERVAL.mul_f64(1.0 - bucket.tokens));
        }
        bucket.tokens -= 1.0;
        self.global.tokens = (self.global.tokens - 1.0).max(0.0);
        Ok(())
    }

    /// Returns the tokens of a successful attempt, and trusts its address.
    pub(super) fn on_success(&mut self, now: Instant, address: IpAddr) {
        let address = network(address);
        self.addresses.remove(&address);
        self.global.tokens = (self.global.tokens + 1.0).min(GLOBAL_BURST);
        self.trusted
            .retain(|(a, trusted_at)| *a != address && now.saturating_duration_since(*trusted_at) < TRUST_DURATION);
        if self.trusted.len() >= MAX_TRUSTED {
            self.trusted.remove(0);
        }
        self.trusted.push((address, now));
    }
}

/// Reduces an IPv6 address to its /64 network, because a client usually has all addresses of one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Burst of attempts per address, and the time in which one more is added.
const ADDRESS_BURST: f64 = 8.0;
const ADDRESS_REFILL_INTERVAL: Duration = Duration::from_secs(30);
/// The same for all addresses together: at most 43,200 attempts a day, against 2^100 passwords.
const GLOBAL_BURST: f64 = 100.0;
const GLOBAL_REFILL_INTERVAL: Duration = Duration::from_secs(2);
/// Time for which a successful login exempts its address from the total limit.
const TRUST_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_TRUSTED: usize = 64;
const MAX_ADDRESSES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(n).into()
    }

    fn accepted(throttle: &mut Throttle, now: Instant, attempts: u32, address: impl Fn(u32) -> IpAddr) -> u32 {
        (0..attempts).map(|n| u32::from(throttle.attempt(now, address(n)).is_ok())).sum()
    }

    #[test]
    fn one_address_has_8_attempts_and_then_one_per_30_seconds() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        assert_eq!(accepted(&mut throttle, start, 20, |_| ip(1)), 8);
        assert_eq!(throttle.attempt(start, ip(1)), Err(Duration::from_secs(30)));
        assert_eq!(accepted(&mut throttle, start, 1, |_| ip(2)), 1, "other addresses are not affected");
        assert_eq!(accepted(&mut throttle, start + Duration::from_secs(60), 20, |_| ip(1)), 2);
    }

    #[test]
    fn all_addresses_share_100_attempts_and_an_ipv6_network_counts_as_one() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        assert_eq!(accepted(&mut throttle, start, 20, |n| Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, n as u16).into()), 8);
        assert_eq!(accepted(&mut throttle, start, 500, ip), 92);
        assert_eq!(accepted(&mut throttle, start + Duration::from_secs(10), 500, |n| ip(1_000 + n)), 5);
    }

    #[test]
    fn trusted_address_is_not_locked_out_by_others() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        throttle.attempt(start, ip(1)).unwrap();
        throttle.on_success(start, ip(1));
        assert_eq!(accepted(&mut throttle, start, 500, |n| ip(100 + n)), 100);
        assert_eq!(accepted(&mut throttle, start, 20, |_| ip(1)), 8, "its own limit still applies");
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_addresses() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for n in 0..50_000 {
            let _ = throttle.attempt(start + GLOBAL_REFILL_INTERVAL * n, ip(n));
        }
        assert!(throttle.addresses.len() <= MAX_ADDRESSES);
    }
}
