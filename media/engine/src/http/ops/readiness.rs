//! The result of the probes behind `/readyz`, cached: probes cost connections and TLS handshakes,
//! and anyone who reaches the health listener may ask.
//!
//! One round of probes runs at a time, whatever the number of callers, and completes even if its
//! caller disconnects. Must not know what is probed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The result of each check, by name, with the reason of a failure.
pub(super) type Checks = BTreeMap<String, Result<(), String>>;

/// A round of probes is not repeated for this duration.
const MAX_AGE: Duration = Duration::from_millis(500);

/// The last round of probes; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ProbeCache(Arc<Mutex<Option<(Instant, Checks)>>>);

impl ProbeCache {
    /// Returns the last result, or runs `probe` if that is too old. Callers that arrive meanwhile
    /// wait for its result.
    pub(super) async fn get<F>(&self, probe: impl FnOnce() -> F + Send + 'static) -> Checks
    where
        F: Future<Output = Checks> + Send + 'static,
    {
        let cache = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let mut last = cache.lock().await;
            if let Some((at, checks)) = &*last
                && at.elapsed() < MAX_AGE
            {
                return checks.clone();
            }
            let checks = probe().await;
            *last = Some((Instant::now(), checks.clone()));
            checks
        });
        task.await.unwrap_or_else(|e| [("probes".to_owned(), Err(e.to_string()))].into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A round of probes that takes a second, and counts the rounds.
    fn round(
        rounds: &Arc<AtomicUsize>,
    ) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = Checks> + Send>> + 'static {
        let rounds = Arc::clone(rounds);
        move || {
            Box::pin(async move {
                let number = rounds.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                [(number.to_string(), Ok(()))].into()
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_round_of_probes_and_its_result_for_half_a_second() {
        let (cache, rounds) = (ProbeCache::default(), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (cache, rounds) = (cache.clone(), Arc::clone(&rounds));
                tokio::spawn(async move { cache.get(round(&rounds)).await })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.unwrap().contains_key("0"));
        }
        tokio::time::advance(MAX_AGE - Duration::from_millis(1)).await;
        assert!(cache.get(round(&rounds)).await.contains_key("0"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(cache.get(round(&rounds)).await.contains_key("1"));
        assert_eq!(rounds.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn round_of_probes_completes_without_its_caller() {
        let (cache, rounds) = (ProbeCache::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..100 {
            let caller = tokio::spawn({
                let (cache, rounds) = (cache.clone(), Arc::clone(&rounds));
                async move { cache.get(round(&rounds)).await }
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
            caller.abort();
        }
        assert_eq!(rounds.load(Ordering::Relaxed), 1);
        assert!(cache.get(round(&rounds)).await.contains_key("0"));
    }
}
