//! Pools of places, such as connections or sessions, in which no client can take every place.
//!
//! As long as at most half of the places are taken, any client may take them. Beyond that, one
//! client address (IPv6: one /64 network) gets a place only while it has less than its share, a
//! quarter by default. Loopback and trusted proxies, which speak for many clients, have no share.
//!
//! Must not know what a place is used for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_api::Config;

use crate::runtime::trusted_proxies::{TrustedProxies, client_network};

/// How the pools of a node are shared among clients.
#[derive(Debug, Clone)]
pub struct SharePolicy {
    percent: usize,
    exempt: TrustedProxies,
    /// False only in tests, whose clients have no other addresses.
    loopback_is_exempt: bool,
}

impl SharePolicy {
    /// The policy of `limits.client_share_percent` and `http.trusted_proxies`.
    pub fn new(config: &Config) -> Self {
        let percent = usize::try_from(config.limits.client_share_percent.get()).unwrap_or(usize::MAX);
        let exempt = TrustedProxies::new(&config.http.trusted_proxies);
        Self { percent, exempt, loopback_is_exempt: true }
    }

    /// Counts loopback like any other client.
    #[cfg(test)]
    pub(crate) fn with_loopback(self) -> Self {
        Self { loopback_is_exempt: false, ..self }
    }

    /// A pool with this number of places.
    pub fn pool(&self, places: usize) -> ClientPool {
        // In this order, nothing overflows and a share is never larger than the pool.
        let share = (places / 100 * self.percent.min(100) + places % 100 * self.percent.min(100) / 100).max(1);
        let Self { exempt, loopback_is_exempt, .. } = self.clone();
        ClientPool(Arc::new(Inner { places, share, exempt, loopback_is_exempt, taken: Mutex::default() }))
    }
}

/// A pool of places; clones share it.
#[derive(Debug, Clone)]
pub struct ClientPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: usize,
    /// Places of one client while more than half of all are taken.
    share: usize,
    exempt: TrustedProxies,
    loopback_is_exempt: bool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// By [`client_network`]; no more entries than places are taken. Exempt clients are not listed.
    by_client: HashMap<IpAddr, usize>,
}

/// Why a client gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// All places are taken.
    #[error("all {places} places are taken")]
    Full {
        /// Number of places in the pool.
        places: usize,
    },
    /// The pool is more than half full, and the client has its share of it.
    #[error("one address may take {share} of {places} places while more than half are taken")]
    ShareUsed {
        /// Places of one client.
        share: usize,
        /// Number of places in the pool.
        places: usize,
    },
}

/// A place in a pool, until it is dropped.
#[derive(Debug)]
pub struct PoolPlace {
    pool: ClientPool,
    /// The client it is counted for; `None` if the client has no share.
    client: Option<IpAddr>,
}

impl ClientPool {
    /// Takes a place for a client.
    ///
    /// # Errors
    /// If the client has its share of a pool that is more than half full, else if the pool is full.
    pub fn take(&self, client: IpAddr) -> Result<PoolPlace, PoolError> {
        let client = client.to_canonical();
        let Inner { places, share, loopback_is_exempt, .. } = *self.0;
        let is_exempt = (client.is_loopback() && loopback_is_exempt) || self.0.exempt.contains(client);
        let counted = (!is_exempt).then(|| client_network(client));
        let mut taken = self.lock();
        let own = counted.and_then(|client| taken.by_client.get(&client).copied()).unwrap_or(0);
        // With this place, more than half would be taken.
        if taken.total + 1 > places - places / 2 && own >= share {
            return Err(PoolError::ShareUsed { share, places });
        }
        if taken.total >= places {
            return Err(PoolError::Full { places });
        }
        if let Some(client) = counted {
            taken.by_client.insert(client, own + 1);
        }
        taken.total += 1;
        drop(taken);
        Ok(PoolPlace { pool: self.clone(), client: counted })
    }

    /// Number of places that are taken.
    pub fn taken(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn forget(&mut self, client: IpAddr) {
        if let Some(own) = self.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

impl PoolPlace {
    /// No longer counts this place for its client's share: the client has proved that it may take
    /// as many as it needs.
    pub fn exempt(&mut self) {
        if let Some(client) = self.client.take() {
            self.pool.lock().forget(client);
        }
    }
}

impl Drop for PoolPlace {
    fn drop(&mut self) {
        let mut taken = self.pool.lock();
        taken.total -= 1;
        if let Some(client) = self.client {
            taken.forget(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(places: usize, percent: u32) -> ClientPool {
        let mut config = Config::default();
        config.limits.client_share_percent = percent.try_into().unwrap();
        config.http.trusted_proxies = vec!["10.0.0.0/16".parse().unwrap()];
        SharePolicy::new(&config).pool(places)
    }

    fn take(pool: &ClientPool, client: &str, count: usize) -> Vec<PoolPlace> {
        (0..count).map_while(|_| pool.take(client.parse().unwrap()).ok()).collect()
    }

    #[test]
    fn one_client_takes_half_of_an_empty_pool_and_a_quarter_of_a_fuller_one() {
        let pool = pool(100, 25);
        let mut attacker = take(&pool, "192.0.2.1", 100);
        assert_eq!(attacker.len(), 50);
        let refused = PoolError::ShareUsed { share: 25, places: 100 };
        assert_eq!(pool.take("192.0.2.1".parse().unwrap()).unwrap_err(), refused);
        let other = take(&pool, "192.0.2.2", 100);
        assert_eq!(other.len(), 25);
        // It is above its share, so a place that becomes free is not for it.
        attacker.truncate(40);
        assert_eq!(pool.take("192.0.2.1".parse().unwrap()).unwrap_err(), refused);
        assert_eq!(take(&pool, "192.0.2.3", 100).len(), 25);
        drop(other);
        attacker.extend(take(&pool, "192.0.2.1", 100));
        assert_eq!(attacker.len(), 50, "at most half is taken again");
        drop(attacker);
        assert_eq!((pool.taken(), pool.lock().by_client.len()), (0, 0));
    }

    #[test]
    fn ipv6_network_is_one_client() {
        let pool = pool(100, 25);
        let places: Vec<_> =
            (0..100).map_while(|n| pool.take(format!("2001:db8::{n:x}").parse().unwrap()).ok()).collect();
        assert_eq!(places.len(), 50);
        assert_eq!(take(&pool, "2001:db8:0:1::1", 100).len(), 25);
    }

    #[test]
    fn loopback_and_trusted_proxies_may_fill_the_pool() {
        for client in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.3.4"] {
            let pool = pool(100, 25);
            let places = take(&pool, client, 200);
            assert_eq!(places.len(), 100, "{client}");
            assert_eq!(pool.take(client.parse().unwrap()).unwrap_err(), PoolError::Full { places: 100 });
        }
    }

    #[test]
    fn exempted_place_does_not_count_for_its_client() {
        let pool = pool(100, 25);
        let mut places = take(&pool, "192.0.2.1", 50);
        places.iter_mut().for_each(PoolPlace::exempt);
        places.extend(take(&pool, "192.0.2.1", 100));
        assert_eq!(places.len(), 75);
        drop(places);
        assert_eq!((pool.taken(), pool.lock().by_client.len()), (0, 0));
    }

    #[test]
    fn share_is_a_percentage_of_at_least_one_place() {
        for (places, percent, expected) in
            [(1, 25, 1), (2, 25, 1), (3, 25, 2), (100, 75, 75), (7, 100, 7), (7, 1_000, 7)]
        {
            assert_eq!(take(&pool(places, percent), "192.0.2.1", 200).len(), expected, "{places} {percent}");
        }
    }
}
