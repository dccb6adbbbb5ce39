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
pub(crate) struct Patience {
    /// An answer is used for this duration without a new query.
    pub(crate) fresh: Duration,
    /// Pause between two queries, with a jitter of half; zero for none.
    pub(crate) pause: Duration,
}

/// Answers by key; clones share them.
#[derive(Debug)]
pub(crate) struct Kept<V>(Arc<Inner<V>>);

#[derive(Debug)]
struct Inner<V> {
    patience: Patience,
    state: Mutex<State<V>>,
    /// Number of finished queries, failed ones included.
    rounds: watch::Sender<u64>,
}

#[derive(Debug)]
struct State<V> {
    known: HashMap<String, Answer<V>>,
    wanted: BTreeSet<String>,
    asking: bool,
    /// The last query failed; there is no query before this.
    quiet_until: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Answer<V> {
    /// `None` if the registry has no value for this key.
    value: Option<V>,
    at: Instant,
    doubted: bool,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Clone + Send + 'static> Kept<V> {
    /// An empty cache.
    pub(crate) fn new(patience: Patience) -> Self {
        let state = State { known: HashMap::new(), wanted: BTreeSet::new(), asking: false, quiet_until: None };
        Self(Arc::new(Inner { patience, state: Mutex::new(state), rounds: watch::Sender::new(0) }))
    }

    /// Returns the values of these keys, in their order. `query` returns the values of all its keys
    /// that exist, or `None` on failure. Ends within [`QUERY_TIMEOUT`] plus the pause after a query.
    pub(crate) async fn of<const N: usize, F>(
        &self,
        keys: [&str; N],
        ask: impl Fn(Vec<String>) -> F + Send + Sync + 'static,
    ) -> [Option<V>; N]
    where
        F: Future<Output = Option<HashMap<String, V>>> + Send + 'static,
    {
        let mut rounds = self.0.rounds.subscribe();
        if self.want(keys) {
            let this = self.clone();
            spawn_shared(async move { this.ask_for_all(ask).await });
        }
        let waited = rounds.wait_for(|_| self.lock().is_settled(&keys, self.0.patience.fresh));
        let _ = tokio::time::timeout(ASK + self.0.patience.pause.mul_f64(1.5), waited).await;
        let state = self.lock();
        keys.map(|key| state.known.get(key).and_then(|answer| answer.value.clone()))
    }

    /// Invalidates all answers: the next caller causes a query.
    pub(crate) fn doubt(&self) {
        self.lock().known.values_mut().for_each(|answer| answer.doubted = true);
    }

    /// Queues the keys that are not fresh. True if the caller must start the query.
    fn want<const N: usize>(&self, keys: [&str; N]) -> bool {
        let mut state = self.lock();
        if state.is_quiet() {
            return false;
        }
        for key in keys {
            let is_due = !state.is_fresh(key, self.0.patience.fresh);
            if is_due && key.len() <= MAX_KEY_BYTES && state.wanted.len() < MAX_WANTED {
                state.wanted.insert(key.to_owned());
            }
        }
        let begins = !state.wanted.is_empty() && !state.asking;
        state.asking |= begins;
        begins
    }

    /// Runs one query after another until no key is queued.
    async fn ask_for_all<F>(self, ask: impl Fn(Vec<String>) -> F)
    where
        F: Future<Output = Option<HashMap<String, V>>>,
    {
        while let Some(keys) = self.next_keys() {
            let answer = tokio::time::timeout(ASK, ask(keys.iter().cloned().collect())).await.ok().flatten();
            self.lock().on_answer(keys, answer);
            self.0.rounds.send_modify(|round| *round += 1);
            if !self.0.patience.pause.is_zero() {
                tokio::time::sleep(jitter(self.0.patience.pause, rand::random_range(0.0..1.0))).await;
            }
        }
    }

    fn next_keys(&self) -> Option<BTreeSet<String>> {
        let mut state = self.lock();
        let mut wanted = std::mem::take(&mut state.wanted);
        // The last query may have answered keys that were queued while it ran.
        wanted.retain(|key| !state.is_fresh(key, self.0.patience.fresh));
        state.asking = !wanted.is_empty();
        state.asking.then_some(wanted)
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn is_quiet(&self) -> bool {
        self.quiet_until.is_some_and(|until| Instant::now() < until)
    }

    fn is_fresh(&self, key: &str, fresh: Duration) -> bool {
        self.known.get(key).is_some_and(|answer| !answer.doubted && answer.at.elapsed() < fresh)
    }

    /// True if no query for these keys is running or queued.
    fn is_settled(&self, keys: &[&str], fresh: Duration) -> bool {
        let comes = |key: &&str| !self.is_fresh(key, fresh) && (self.asking || self.wanted.contains(*key));
        self.is_quiet() || !keys.iter().any(comes)
    }

    fn on_answer(&mut self, keys: BTreeSet<String>, answer: Option<HashMap<String, V>>) {
        let now = Instant::now();
        let Some(mut values) = answer else {
            self.wanted.clear();
            self.quiet_until = Some(now + jitter(AWAY, rand::random_range(0.0..1.0)));
            return;
        };
        self.quiet_until = None;
        if self.known.len() + keys.len() > MAX_KNOWN {
            self.known.retain(|_, answer| answer.value.is_some() && now.duration_since(answer.at) < KEEP);
            if self.known.len() + keys.len() > MAX_KNOWN {
                self.known.clear();
            }
        }
        for key in keys {
            let value = values.remove(&key);
            self.known.insert(key, Answer { value, at: now, doubted: false });
        }
    }
}

/// For one query of the registry.
const ASK: Duration = Duration::from_secs(1);
/// Pause after a failed query, with a jitter of half.
const AWAY: Duration = Duration::from_secs(2);
/// Keys in one query. Keys come from the network, so their number and length are bounded.
const MAX_WANTED: usize = 500;
const MAX_KNOWN: usize = 10_000;
const MAX_KEY_BYTES: usize = 128;
/// Answers older than this are evicted first when the cache is full.
const KEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const PATIENCE: Patience = Patience { fresh: Duration::from_secs(2), pause: Duration::from_secs(1) };

    /// Answers after 100 ms, with the number of the query as value, and records the queries.
    #[derive(Debug, Clone, Default)]
    struct Script {
        away: Arc<AtomicBool>,
        asked: Arc<Mutex<Vec<Vec<String>>>>,
    }

    type Answering = Pin<Box<dyn Future<Output = Option<HashMap<String, usize>>> + Send>>;

    impl Script {
        fn ask(&self) -> impl Fn(Vec<String>) -> Answering + use<> {
            let this = self.clone();
            move |keys| {
                let this = this.clone();
                Box::pin(async move {
                    this.asked.lock().unwrap().push(keys.clone());
                    if this.away.load(Ordering::Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let round = this.asked.lock().unwrap().len();
                    Some(keys.into_iter().filter(|key| key != "nobody").map(|key| (key, round)).collect())
                })
            }
        }

        fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    async fn one(kept: &Kept<usize>, key: &str, script: &Script) -> Option<usize> {
        let [value] = kept.of([key], script.ask()).await;
        value
    }

    #[tokio::test(start_paused = true)]
    async fn thousand_concurrent_callers_cause_one_query() {
        let (kept, script) = (Kept::new(PATIENCE), Script::default());
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let (kept, script) = (kept.clone(), script.clone());
            tasks.spawn(async move {
                // Half of the callers arrive while the query is running.
                tokio::time::sleep(Duration::from_millis(50 * (n as u64 % 2))).await;
                one(&kept, "a", &script).await
            });
        }
        let answers = tasks.join_all().await;
        assert!(answers.iter().all(Option::is_some));
        tokio::time::sleep(10 * PATIENCE.pause).await;
        assert_eq!(script.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_or_absence_is_reused_until_it_is_stale_or_invalidated() {
        let (kept, script) = (Kept::new(PATIENCE), Script::default());
        assert_eq!(kept.of(["a", "nobody"], script.ask()).await, [Some(1), None]);
        assert_eq!(kept.of(["nobody", "a"], script.ask()).await, [None, Some(1)]);
        assert_eq!(script.count(), 1);
        kept.doubt();
        assert_eq!(one(&kept, "a", &script).await, Some(2));
        tokio::time::advance(PATIENCE.fresh).await;
        assert_eq!(one(&kept, "a", &script).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_at_most_one_query_per_interval() {
        let (kept, script) = (Kept::new(PATIENCE), Script::default());
        let (begun, seconds) = (Instant::now(), 20);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..seconds * 100 {
            let (kept, script) = (kept.clone(), script.clone());
            tasks.spawn(async move { one(&kept, &format!("made-up-{n}"), &script).await });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let most = begun.elapsed().div_duration_f64(PATIENCE.pause / 2) as usize;
        assert!((5..=most).contains(&script.count()), "{} queries", script.count());
        assert!(script.asked.lock().unwrap().iter().all(|keys| keys.len() <= MAX_WANTED));
        assert_eq!(one(&kept, &"x".repeat(MAX_KEY_BYTES + 1), &script).await, None);
        assert!(!script.asked.lock().unwrap().iter().flatten().any(|key| key.len() > MAX_KEY_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_query_is_not_repeated_at_once_and_stale_answers_are_returned() {
        let (kept, script) = (Kept::new(PATIENCE), Script::default());
        assert_eq!(one(&kept, "a", &script).await, Some(1));
        tokio::time::advance(2 * PATIENCE.fresh).await;
        script.away.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(one(&kept, "a", &script).await, Some(1));
        }
        assert_eq!(script.count(), 2, "one query, which was not answered");
        assert!(begun.elapsed() <= ASK, "{:?}: only the first caller waits", begun.elapsed());
        script.away.store(false, Ordering::Relaxed);
        tokio::time::advance(2 * AWAY).await;
        assert_eq!(one(&kept, "a", &script).await, Some(3));
    }
}
