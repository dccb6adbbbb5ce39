//! A batching, single-flight cache of registry queries.
//!
//! ```text
//!   get(keys) --cached and fresh------------> cached values
//!       |------no query running----> one query for all queued keys --+--> cached, returned to all
//!       |------query running-------> next query ---------------------+
//!       '------registry failed a moment ago--> cached values, whatever their age
//! ```
//!
//! There is one query at a time, independent of the number of callers and keys, a pause after each,
//! and a longer pause after a failed one. Must not know what the keys and values mean.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_registry::jitter;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::runtime::worker_pool::spawn_shared;

/// How long answers are used, and how often is queried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachePolicy {
    /// An answer is used for this duration without a new query.
    pub(crate) max_age: Duration,
    /// Pause between two queries, with a jitter of half; zero for none.
    pub(crate) query_interval: Duration,
}

/// Answers by key; clones share them.
#[derive(Debug)]
pub(crate) struct QueryCache<V>(Arc<Inner<V>>);

#[derive(Debug)]
struct Inner<V> {
    policy: CachePolicy,
    state: Mutex<State<V>>,
    /// Number of finished queries, failed ones included.
    finished_queries: watch::Sender<u64>,
}

#[derive(Debug)]
struct State<V> {
    answers: HashMap<String, Answer<V>>,
    queued: BTreeSet<String>,
    query_running: bool,
    /// The last query failed; there is no query before this.
    backoff_until: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Answer<V> {
    /// `None` if the registry has no value for this key.
    value: Option<V>,
    fetched_at: Instant,
    invalidated: bool,
}

impl<V> Clone for QueryCache<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Clone + Send + 'static> QueryCache<V> {
    /// An empty cache.
    pub(crate) fn new(policy: CachePolicy) -> Self {
        let state =
            State { answers: HashMap::new(), queued: BTreeSet::new(), query_running: false, backoff_until: None };
        Self(Arc::new(Inner { policy, state: Mutex::new(state), finished_queries: watch::Sender::new(0) }))
    }

    /// Returns the values of these keys, in their order. `query` returns the values of all its keys
    /// that exist, or `None` on failure. Ends within [`QUERY_TIMEOUT`] plus the pause after a
    /// query.
    pub(crate) async fn get<const N: usize, F>(
        &self,
        keys: [&str; N],
        query: impl Fn(Vec<String>) -> F + Send + Sync + 'static,
    ) -> [Option<V>; N]
    where
        F: Future<Output = Option<HashMap<String, V>>> + Send + 'static,
    {
        let mut finished_queries = self.0.finished_queries.subscribe();
        if self.enqueue_stale(keys) {
            let this = self.clone();
            spawn_shared(async move { this.run_queries(query).await });
        }
        let waited = finished_queries.wait_for(|_| self.lock().is_settled(&keys, self.0.policy.max_age));
        let _ = tokio::time::timeout(QUERY_TIMEOUT + self.0.policy.query_interval.mul_f64(1.5), waited).await;
        let state = self.lock();
        keys.map(|key| state.answers.get(key).and_then(|answer| answer.value.clone()))
    }

    /// Invalidates all answers: the next caller causes a query.
    pub(crate) fn invalidate(&self) {
        self.lock().answers.values_mut().for_each(|answer| answer.invalidated = true);
    }

    /// Queues the keys that are not fresh. True if the caller must start the query.
    fn enqueue_stale<const N: usize>(&self, keys: [&str; N]) -> bool {
        let mut state = self.lock();
        if state.is_backing_off() {
            return false;
        }
        for key in keys {
            let is_due = !state.is_fresh(key, self.0.policy.max_age);
            if is_due && key.len() <= MAX_KEY_BYTES && state.queued.len() < MAX_QUEUED_KEYS {
                state.queued.insert(key.to_owned());
            }
        }
        let starts = !state.queued.is_empty() && !state.query_running;
        state.query_running |= starts;
        starts
    }

    /// Runs one query after another until no key is queued.
    async fn run_queries<F>(self, query: impl Fn(Vec<String>) -> F)
    where
        F: Future<Output = Option<HashMap<String, V>>>,
    {
        while let Some(keys) = self.next_keys() {
            let answer =
                tokio::time::timeout(QUERY_TIMEOUT, query(keys.iter().cloned().collect())).await.ok().flatten();
            self.lock().on_answer(keys, answer);
            self.0.finished_queries.send_modify(|count| *count += 1);
            if !self.0.policy.query_interval.is_zero() {
                tokio::time::sleep(jitter(self.0.policy.query_interval, rand::random_range(0.0..1.0))).await;
            }
        }
    }

    fn next_keys(&self) -> Option<BTreeSet<String>> {
        let mut state = self.lock();
        let mut keys = std::mem::take(&mut state.queued);
        // The last query may have answered keys that were queued while it ran.
        keys.retain(|key| !state.is_fresh(key, self.0.policy.max_age));
        state.query_running = !keys.is_empty();
        state.query_running.then_some(keys)
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn is_backing_off(&self) -> bool {
        self.backoff_until.is_some_and(|until| Instant::now() < until)
    }

    fn is_fresh(&self, key: &str, max_age: Duration) -> bool {
        self.answers.get(key).is_some_and(|answer| !answer.invalidated && answer.fetched_at.elapsed() < max_age)
    }

    /// True if no query for these keys is running or queued.
    fn is_settled(&self, keys: &[&str], max_age: Duration) -> bool {
        let is_expected =
            |key: &&str| !self.is_fresh(key, max_age) && (self.query_running || self.queued.contains(*key));
        self.is_backing_off() || !keys.iter().any(is_expected)
    }

    fn on_answer(&mut self, keys: BTreeSet<String>, answer: Option<HashMap<String, V>>) {
        let now = Instant::now();
        let Some(mut values) = answer else {
            self.queued.clear();
            self.backoff_until = Some(now + jitter(FAILURE_BACKOFF, rand::random_range(0.0..1.0)));
            return;
        };
        self.backoff_until = None;
        if self.answers.len() + keys.len() > MAX_ANSWERS {
            self.answers
                .retain(|_, answer| answer.value.is_some() && now.duration_since(answer.fetched_at) < EVICTION_AGE);
            if self.answers.len() + keys.len() > MAX_ANSWERS {
                self.answers.clear();
            }
        }
        for key in keys {
            let value = values.remove(&key);
            self.answers.insert(key, Answer { value, fetched_at: now, invalidated: false });
        }
    }
}

/// For one query of the registry.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed query, with a jitter of half.
const FAILURE_BACKOFF: Duration = Duration::from_secs(2);
/// Keys in one query. Keys come from the network, so their number and length are bounded.
const MAX_QUEUED_KEYS: usize = 500;
const MAX_ANSWERS: usize = 10_000;
const MAX_KEY_BYTES: usize = 128;
/// Answers older than this are evicted first when the cache is full.
const EVICTION_AGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const POLICY: CachePolicy = CachePolicy { max_age: Duration::from_secs(2), query_interval: Duration::from_secs(1) };

    /// Answers after 100 ms, with the number of the query as value, and records the queries.
    #[derive(Debug, Clone, Default)]
    struct FakeRegistry {
        unreachable: Arc<AtomicBool>,
        queries: Arc<Mutex<Vec<Vec<String>>>>,
    }

    type AnswerFuture = Pin<Box<dyn Future<Output = Option<HashMap<String, usize>>> + Send>>;

    impl FakeRegistry {
        fn query_fn(&self) -> impl Fn(Vec<String>) -> AnswerFuture + use<> {
            let this = self.clone();
            move |keys| {
                let this = this.clone();
                Box::pin(async move {
                    this.queries.lock().unwrap().push(keys.clone());
                    if this.unreachable.load(Ordering::Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let number = this.queries.lock().unwrap().len();
                    Some(keys.into_iter().filter(|key| key != "absent").map(|key| (key, number)).collect())
                })
            }
        }

        fn query_count(&self) -> usize {
            self.queries.lock().unwrap().len()
        }
    }

    async fn get_one(cache: &QueryCache<usize>, key: &str, registry: &FakeRegistry) -> Option<usize> {
        let [value] = cache.get([key], registry.query_fn()).await;
        value
    }

    #[tokio::test(start_paused = true)]
    async fn thousand_concurrent_callers_cause_one_query() {
        let (cache, registry) = (QueryCache::new(POLICY), FakeRegistry::default());
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let (cache, registry) = (cache.clone(), registry.clone());
            tasks.spawn(async move {
                // Half of the callers arrive while the query is running.
                tokio::time::sleep(Duration::from_millis(50 * (n as u64 % 2))).await;
                get_one(&cache, "a", &registry).await
            });
        }
        let answers = tasks.join_all().await;
        assert!(answers.iter().all(Option::is_some));
        tokio::time::sleep(10 * POLICY.query_interval).await;
        assert_eq!(registry.query_count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_or_absence_is_reused_until_it_is_stale_or_invalidated() {
        let (cache, registry) = (QueryCache::new(POLICY), FakeRegistry::default());
        assert_eq!(cache.get(["a", "absent"], registry.query_fn()).await, [Some(1), None]);
        assert_eq!(cache.get(["absent", "a"], registry.query_fn()).await, [None, Some(1)]);
        assert_eq!(registry.query_count(), 1);
        cache.invalidate();
        assert_eq!(get_one(&cache, "a", &registry).await, Some(2));
        tokio::time::advance(POLICY.max_age).await;
        assert_eq!(get_one(&cache, "a", &registry).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_at_most_one_query_per_interval() {
        let (cache, registry) = (QueryCache::new(POLICY), FakeRegistry::default());
        let (started, seconds) = (Instant::now(), 20);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..seconds * 100 {
            let (cache, registry) = (cache.clone(), registry.clone());
            tasks.spawn(async move { get_one(&cache, &format!("made-up-{n}"), &registry).await });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let max_queries = started.elapsed().div_duration_f64(POLICY.query_interval / 2) as usize;
        assert!((5..=max_queries).contains(&registry.query_count()), "{} queries", registry.query_count());
        assert!(registry.queries.lock().unwrap().iter().all(|keys| keys.len() <= MAX_QUEUED_KEYS));
        assert_eq!(get_one(&cache, &"x".repeat(MAX_KEY_BYTES + 1), &registry).await, None);
        assert!(!registry.queries.lock().unwrap().iter().flatten().any(|key| key.len() > MAX_KEY_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_query_is_not_repeated_at_once_and_stale_answers_are_returned() {
        let (cache, registry) = (QueryCache::new(POLICY), FakeRegistry::default());
        assert_eq!(get_one(&cache, "a", &registry).await, Some(1));
        tokio::time::advance(2 * POLICY.max_age).await;
        registry.unreachable.store(true, Ordering::Relaxed);
        let started = Instant::now();
        for _ in 0..100 {
            assert_eq!(get_one(&cache, "a", &registry).await, Some(1));
        }
        assert_eq!(registry.query_count(), 2, "one query, which was not answered");
        assert!(started.elapsed() <= QUERY_TIMEOUT, "{:?}: only the first caller waits", started.elapsed());
        registry.unreachable.store(false, Ordering::Relaxed);
        tokio::time::advance(2 * FAILURE_BACKOFF).await;
        assert_eq!(get_one(&cache, "a", &registry).await, Some(3));
    }
}
