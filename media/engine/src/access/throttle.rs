//! Limits how often a client may present wrong credentials, per app.
//!
//! Only guesses count: credentials that nobody who was given them would present. An expired token
//! with a valid signature is no guess, and neither is a request without credentials. A client that
//! has guessed too often is refused without a check, so that it learns nothing; sessions that it
//! has already and tokens with a valid signature are not affected. Takes the time as an argument.
//!
//! | bucket | applies to |
//! | --- | --- |
//! | of the network | an IPv4 address or an IPv6 /64, and an app |
//! | of the wide network | an IPv6 /48, which one customer usually has, and an app |

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use headwater_api::IpNetwork;

use crate::runtime::token_bucket::{Limit, TokenBucket};
use crate::runtime::trusted_proxies::client_network;

/// The guesses of recent minutes.
#[derive(Debug, Default)]
pub(super) struct GuessThrottle {
    /// Buckets that are not full.
    buckets: HashMap<(IpNetwork, Box<str>), TokenBucket>,
}

impl GuessThrottle {
    /// True if this client may present credentials for a stream of this app.
    pub(super) fn admits(&mut self, now: Instant, client: IpAddr, app: &str) -> bool {
        if self.buckets.is_empty() {
            return true;
        }
        networks(client).into_iter().flatten().all(|(network, _)| {
            self.buckets.get_mut(&(network, app.into())).is_none_or(|bucket| {
                bucket.refill(now);
                bucket.delay().is_zero()
            })
        })
    }

    /// Counts a guess.
    pub(super) fn record(&mut self, now: Instant, client: IpAddr, app: &str) {
        if self.buckets.len() >= MAX_BUCKETS {
            self.forget_full(now);
        }
        for (network, limit) in networks(client).into_iter().flatten() {
            let bucket = self.buckets.entry((network, app.into())).or_insert_with(|| TokenBucket::full(limit, now));
            bucket.refill(now);
            // Guesses of one moment are all counted, up to a wait of some minutes.
            if bucket.missing() < MAX_MISSING * limit.burst {
                bucket.take();
            }
        }
    }

    /// Makes room: removes buckets that are full again, or, if there are few of these, all. Then an
    /// attacker with very many addresses has as many guesses per address again.
    fn forget_full(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            !bucket.is_full()
        });
        if self.buckets.len() > MAX_BUCKETS / 2 {
            self.buckets.clear();
        }
    }
}

/// The networks of an address that have buckets of their own.
fn networks(address: IpAddr) -> [Option<(IpNetwork, Limit)>; 2] {
    let address = address.to_canonical();
    let own = IpNetwork::of(client_network(address), if address.is_ipv4() { 32 } else { 64 });
    let wide = address.is_ipv6().then(|| (IpNetwork::of(address, WIDE_PREFIX_BITS), WIDE_NETWORK_LIMIT));
    [Some((own, NETWORK_LIMIT)), wide]
}

/// Of one network: 43,200 guesses a day, against keys of at least 8 random characters (2^47).
const NETWORK_LIMIT: Limit = Limit { burst: 30.0, refill_interval: Duration::from_secs(2) };
/// Of an IPv6 network with this prefix, which contains 65,536 networks of /64.
const WIDE_NETWORK_LIMIT: Limit = Limit { burst: 120.0, refill_interval: Duration::from_millis(500) };
const WIDE_PREFIX_BITS: u8 = 48;
/// Of a bucket, in multiples of its size: after that, one guess is checked per interval, not none
/// for hours.
const MAX_MISSING: f64 = 3.0;
const MAX_BUCKETS: usize = 20_000;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    /// The number of attempts, all of them wrong, that are checked.
    fn checked(throttle: &mut GuessThrottle, now: Instant, attempts: u32, address: impl Fn(u32) -> IpAddr) -> u32 {
        let mut attempt = |n| {
            let admitted = throttle.admits(now, address(n), "live");
            if admitted {
                throttle.record(now, address(n), "live");
            }
            u32::from(admitted)
        };
        (0..attempts).map(&mut attempt).sum()
    }

    #[test]
    fn one_address_has_30_guesses_and_then_one_per_two_seconds() {
        let (mut throttle, start) = (GuessThrottle::default(), Instant::now());
        assert_eq!(checked(&mut throttle, start, 1_000_000, |_| ip(1)), 30);
        assert_eq!(checked(&mut throttle, start + Duration::from_secs(10), 100, |_| ip(1)), 5);
        assert!(throttle.admits(start, ip(2), "live"), "another address");
        assert!(throttle.admits(start, ip(1), "other"), "another app");
    }

    #[test]
    fn ipv6_networks_are_limited_per_64_and_48_bit_prefix() {
        let (mut throttle, start) = (GuessThrottle::default(), Instant::now());
        let in_64 = |n: u32| Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, n as u16).into();
        assert_eq!(checked(&mut throttle, start, 100, in_64), 30);
        let in_48 = |n: u32| Ipv6Addr::new(1, 2, 3, 100 + n as u16, 5, 6, 7, 8).into();
        assert_eq!(checked(&mut throttle, start, 200, in_48), 90);
        assert!(throttle.admits(start, Ipv6Addr::new(1, 2, 4, 0, 0, 0, 0, 1).into(), "live"));
    }

    #[test]
    fn memory_is_bounded_for_any_number_of_addresses() {
        let (mut throttle, start) = (GuessThrottle::default(), Instant::now());
        assert_eq!(checked(&mut throttle, start, 100_000, ip), 100_000);
        assert!(throttle.buckets.len() <= MAX_BUCKETS);
    }
}
