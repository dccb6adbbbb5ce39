//! Limits the rate of login attempts, per network and in total.
//!
//! Uses token buckets. An attempt takes a token from each bucket that applies to it, and a
//! successful one returns them. An attempt that finds a bucket empty waits for a token, and is
//! refused only if that would take too long.
//!
//! | bucket | applies to |
//! | --- | --- |
//! | of the network | every attempt from an IPv4 address or an IPv6 /64 |
//! | of the wide network | every attempt from an IPv6 /48, which one customer usually has |
//! | shared | networks with a failed attempt within the last day |
//! | reserved | networks without one, so that attempts from other networks cannot lock them out |
//!
//! Networks with a recent successful login use neither of the last two.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use headwater_api::IpNetwork;

use crate::runtime::token_bucket::{Limit, TokenBucket};
use crate::runtime::trusted_proxies::client_network;

/// The login attempts of one node.
#[derive(Debug)]
pub(super) struct Throttle {
    shared: TokenBucket,
    reserved: TokenBucket,
    /// Networks with attempts that have not succeeded.
    failed: HashMap<IpNetwork, FailedAttempts>,
    trusted: Vec<(IpAddr, Instant)>,
}

/// The attempts of one network since its last successful one.
#[derive(Debug, Clone, Copy)]
struct FailedAttempts {
    bucket: TokenBucket,
    last_at: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            shared: TokenBucket::full(SHARED_LIMIT, now),
            reserved: TokenBucket::full(RESERVED_LIMIT, now),
            failed: HashMap::new(),
            trusted: Vec::new(),
        }
    }

    /// Counts an attempt, and returns how long it must wait before the password is verified. The
    /// attempt counts as failed until [`Self::on_success`].
    ///
    /// # Errors
    /// The time until another attempt may be made, if that is longer than an attempt may wait.
    pub(super) fn attempt(&mut self, now: Instant, address: IpAddr) -> Result<Duration, Duration> {
        let networks = networks(address);
        let attempts = |limit: Limit, network: &IpNetwork| {
            let mut known = self.failed.get(network).copied();
            if let Some(known) = &mut known {
                known.bucket.refill(now);
            }
            known.unwrap_or(FailedAttempts { bucket: TokenBucket::full(limit, now), last_at: now })
        };
        let mut own: Vec<_> = networks.iter().map(|(network, limit)| (*network, attempts(*limit, network))).collect();
        let common = match (self.is_trusted(now, address), self.has_failed(now, address)) {
            (true, _) => None,
            (false, true) => Some(&mut self.shared),
            (false, false) => Some(&mut self.reserved),
        };
        let mut delay = own.iter().map(|(_, attempts)| attempts.bucket.delay()).max().unwrap_or_default();
        if let Some(bucket) = common {
            bucket.refill(now);
            delay = delay.max(bucket.delay());
            if delay <= MAX_DELAY {
                bucket.take();
            }
        }
        if delay > MAX_DELAY {
            return Err(delay);
        }
        // The more attempts of a network have failed, the longer the next one takes.
        let failures = own.first().map_or(0.0, |(_, attempts)| attempts.bucket.missing());
        self.forget_old(now);
        for (network, attempts) in &mut own {
            attempts.bucket.take();
            attempts.last_at = now;
            self.failed.insert(*network, *attempts);
        }
        Ok(delay.max(penalty(failures)))
    }

    /// Returns the tokens of a successful attempt, and trusts its address.
    pub(super) fn on_success(&mut self, now: Instant, address: IpAddr) {
        if !self.is_trusted(now, address) {
            // Which of the two was used is no longer known; more tokens in the other one do no
            // harm.
            self.shared.give_back();
            self.reserved.give_back();
        }
        let mut networks = networks(address).into_iter();
        if let Some((network, _)) = networks.next() {
            self.failed.remove(&network);
        }
        for (wide_network, _) in networks {
            // Its other networks may still be guessing.
            if let Some(attempts) = self.failed.get_mut(&wide_network) {
                attempts.bucket.give_back();
            }
        }
        let address = client_network(address);
        self.trusted
            .retain(|(a, trusted_at)| *a != address && now.saturating_duration_since(*trusted_at) < TRUST_DURATION);
        if self.trusted.len() >= MAX_TRUSTED {
            self.trusted.remove(0);
        }
        self.trusted.push((address, now));
    }

    fn is_trusted(&self, now: Instant, address: IpAddr) -> bool {
        let address = client_network(address);
        let is_recent = |trusted_at: Instant| now.saturating_duration_since(trusted_at) < TRUST_DURATION;
        self.trusted.iter().any(|(a, trusted_at)| *a == address && is_recent(*trusted_at))
    }

    /// True if an attempt from one of the networks of the address has failed recently.
    fn has_failed(&self, now: Instant, address: IpAddr) -> bool {
        let is_recent = |attempts: &FailedAttempts| now.saturating_duration_since(attempts.last_at) < FAILURE_MAX_AGE;
        networks(address).iter().any(|(network, _)| self.failed.get(network).is_some_and(is_recent))
    }

    /// Makes room for another network. Forgets failures that are too old; if that is not enough,
    /// the oldest quarter.
    fn forget_old(&mut self, now: Instant) {
        if self.failed.len() < MAX_NETWORKS {
            return;
        }
        self.failed.retain(|_, attempts| now.saturating_duration_since(attempts.last_at) < FAILURE_MAX_AGE);
        if self.failed.len() >= MAX_NETWORKS {
            let mut times: Vec<_> = self.failed.values().map(|attempts| attempts.last_at).collect();
            let quarter = times.len() / 4;
            let (_, limit, _) = times.select_nth_unstable(quarter);
            let limit = *limit;
            self.failed.retain(|_, attempts| attempts.last_at > limit);
        }
    }
}

/// The networks of an address that have buckets of their own, the narrowest first.
fn networks(address: IpAddr) -> Vec<(IpNetwork, Limit)> {
    let address = address.to_canonical();
    let own = (IpNetwork::of(client_network(address), if address.is_ipv4() { 32 } else { 64 }), NETWORK_LIMIT);
    let wide = address.is_ipv6().then(|| (IpNetwork::of(address, WIDE_PREFIX_BITS), WIDE_NETWORK_LIMIT));
    std::iter::once(own).chain(wide).collect()
}

/// The pause before an attempt after this number of failed ones: none after the first three, then
/// a quarter of a second, doubled with each further one.
fn penalty(failures: f64) -> Duration {
    let excess = failures - FREE_FAILURES;
    if excess < 0.0 { Duration::ZERO } else { MIN_PENALTY_DELAY.mul_f64(excess.exp2()).min(MAX_PENALTY_DELAY) }
}

/// Of one network.
const NETWORK_LIMIT: Limit = Limit { burst: 8.0, refill_interval: Duration::from_secs(30) };
/// Of an IPv6 network with this prefix, which contains 65,536 networks of /64.
const WIDE_NETWORK_LIMIT: Limit = Limit { burst: 32.0, refill_interval: Duration::from_secs(8) };
const WIDE_PREFIX_BITS: u8 = 48;
/// Of all networks with failed attempts together: at most 43,200 attempts a day, against 2^100
/// passwords.
const SHARED_LIMIT: Limit = Limit { burst: 100.0, refill_interval: Duration::from_secs(2) };
/// Of all networks without failed attempts. At most a fifth of a core hashes their passwords.
const RESERVED_LIMIT: Limit = Limit { burst: 100.0, refill_interval: Duration::from_millis(250) };
/// The longest wait for a token. Bounds the waiting attempts: 20 of networks without failed ones.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Failed attempts after which the next one is not delayed.
const FREE_FAILURES: f64 = 3.0;
const MIN_PENALTY_DELAY: Duration = Duration::from_millis(250);
const MAX_PENALTY_DELAY: Duration = Duration::from_secs(2);
/// Time after which a failed attempt no longer counts against its network.
const FAILURE_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for which a successful login exempts its address from the limits of all networks.
const TRUST_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_TRUSTED: usize = 64;
const MAX_NETWORKS: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    /// The number of attempts that are not refused.
    fn accepted(throttle: &mut Throttle, now: Instant, attempts: u32, address: impl Fn(u32) -> IpAddr) -> u32 {
        (0..attempts).map(|n| u32::from(throttle.attempt(now, address(n)).is_ok())).sum()
    }

    #[test]
    fn one_address_has_8_attempts_and_then_one_per_30_seconds() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        assert_eq!(accepted(&mut throttle, start, 20, |_| ip(1)), 8);
        assert_eq!(throttle.attempt(start, ip(1)), Err(Duration::from_secs(30)));
        assert_eq!(throttle.attempt(start, ip(2)), Ok(Duration::ZERO), "other addresses are not affected");
        let later = start + Duration::from_secs(28);
        let delay_ms = throttle.attempt(later, ip(1)).map(|delay| delay.as_millis());
        assert_eq!(delay_ms, Ok(2_000), "it waits for its token");
        assert_eq!(accepted(&mut throttle, start + Duration::from_secs(90), 20, |_| ip(1)), 2);
    }

    #[test]
    fn attempts_after_three_failed_ones_are_delayed_more_and_more() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let delays: Vec<_> = (0..8).map(|_| throttle.attempt(start, ip(1)).unwrap().as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 250, 500, 1_000, 2_000, 2_000]);
        throttle.on_success(start, ip(1));
        assert_eq!(throttle.attempt(start, ip(1)), Ok(Duration::ZERO));
    }

    #[test]
    fn address_without_failed_attempts_is_not_kept_out_by_guesses_of_others() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        // A first guess of each of many addresses, then as many more as they can make.
        assert_eq!(accepted(&mut throttle, start, 100, ip), 100);
        assert!(accepted(&mut throttle, start, 1_000, |n| ip(n % 100)) >= 100);
        let mut now = start;
        for n in 0..1_000 {
            now += Duration::from_millis(300);
            let _ = throttle.attempt(now, ip(n % 100));
            assert!(throttle.attempt(now, ip(10_000 + n)).is_ok(), "address {n} without failed attempts is refused");
        }
    }

    #[test]
    fn addresses_with_failed_attempts_share_100_attempts() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        assert_eq!(accepted(&mut throttle, start, 100, ip), 100);
        // 100 at once, and those that wait for their token for up to five seconds.
        assert_eq!(accepted(&mut throttle, start, 700, |n| ip(n % 100)), 102);
        let later = start + Duration::from_secs(10);
        assert_eq!(accepted(&mut throttle, later, 700, |n| ip(n % 100)), 5);
    }

    #[test]
    fn ipv6_networks_are_limited_per_64_and_48_bit_prefix() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let in_64 = |n: u32| Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, n as u16).into();
        assert_eq!(accepted(&mut throttle, start, 20, in_64), 8);
        let in_48 = |n: u32| Ipv6Addr::new(1, 2, 3, 100 + n as u16, 5, 6, 7, 8).into();
        assert_eq!(accepted(&mut throttle, start, 100, in_48), 24);
        let elsewhere = |n: u32| Ipv6Addr::new(1, 2, 4, n as u16, 5, 6, 7, 8).into();
        assert_eq!(throttle.attempt(start, elsewhere(0)), Ok(Duration::ZERO));
        // Only its first attempt used the reserved capacity: the other networks share a prefix.
        assert!(throttle.reserved.missing() < 3.0, "{:?}", throttle.reserved);
    }

    #[test]
    fn trusted_address_is_not_locked_out_by_others() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        throttle.attempt(start, ip(1)).unwrap();
        throttle.on_success(start, ip(1));
        accepted(&mut throttle, start, 1_000, |n| ip(100 + n));
        accepted(&mut throttle, start, 1_000, |n| ip(100 + n));
        assert_eq!(accepted(&mut throttle, start, 20, |_| ip(1)), 8, "its own limit still applies");
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_addresses() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for n in 0..50_000 {
            let _ = throttle.attempt(start + RESERVED_LIMIT.refill_interval * n, ip(n));
        }
        assert!(throttle.failed.len() <= MAX_NETWORKS);
        let last = start + RESERVED_LIMIT.refill_interval * 50_000;
        assert!(throttle.has_failed(last, ip(49_999)), "the latest failures are kept");
    }
}
