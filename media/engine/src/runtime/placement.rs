//! Chooses the thread for the next connection: the first that is less than half busy.
//!
//! Concentrating work on few threads costs less CPU time than spreading it, because every thread
//! with a share of the work must be woken for every frame. Must not know what a connection is for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Places connections on threads, filling one thread after another.
#[derive(Debug)]
pub struct Placement {
    max_lead: usize,
    gauge: Mutex<LoadGauge>,
}

/// The latest load sample of all threads.
#[derive(Debug)]
struct LoadGauge {
    sampled_at: Instant,
    /// Busy time of each thread since its start, at the time of the sample.
    busy: Vec<Duration>,
    /// Busy percentage of each thread in the interval before the sample, plus the expected load of
    /// work placed since.
    percent: Vec<u32>,
    /// Threads from which one piece of work should move away before the next sample.
    overloaded: Vec<bool>,
}

impl Placement {
    /// `max_lead`: a thread with this many connections more than the emptiest one gets no more,
    /// because connections that are idle now may all become busy at once.
    pub fn new(threads: usize, max_lead: usize) -> Self {
        let gauge = LoadGauge {
            sampled_at: Instant::now(),
            busy: vec![Duration::ZERO; threads],
            percent: vec![0; threads],
            overloaded: vec![false; threads],
        };
        Self { max_lead, gauge: Mutex::new(gauge) }
    }

    /// Returns the index of the thread for the next connection: the first that is less than half
    /// busy, else the least busy one. `connections` is the number of connections of each thread,
    /// `None` for a thread that must get no more; `busy` returns the busy time of each since its
    /// start. Returns `None` if no thread may get more.
    pub fn pick(&self, connections: &[Option<usize>], busy: impl FnOnce() -> Vec<Duration>) -> Option<usize> {
        choose_worker(&self.refresh(busy).percent, connections, self.max_lead)
    }

    /// Reserves `percent` of thread `n` for new work. Returns false, and reserves nothing, if the
    /// thread is already half busy.
    pub fn try_reserve(&self, n: usize, percent: u32, busy: impl FnOnce() -> Vec<Duration>) -> bool {
        self.refresh(busy).try_reserve(n, percent)
    }

    /// Returns true if thread `n` is overloaded and the caller's work should move away. Returns
    /// true once per sample, so that the next sample can show whether moving one piece was enough.
    pub fn claim_migration(&self, n: usize, busy: impl FnOnce() -> Vec<Duration>) -> bool {
        self.refresh(busy).claim_migration(n)
    }

    /// Marks every thread as overloaded, and takes no more samples.
    #[cfg(test)]
    pub(crate) fn mark_all_overloaded(&self) {
        let mut gauge = self.gauge.lock().unwrap();
        gauge.overloaded.fill(true);
        gauge.sampled_at = Instant::now() + Duration::from_secs(3_600);
    }

    /// True if work should still move away from thread `n`.
    #[cfg(test)]
    pub(crate) fn is_overloaded(&self, n: usize) -> bool {
        self.gauge.lock().unwrap().overloaded[n]
    }

    fn refresh(&self, busy: impl FnOnce() -> Vec<Duration>) -> MutexGuard<'_, LoadGauge> {
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        if gauge.sampled_at.elapsed() >= SAMPLE_INTERVAL {
            gauge.update(Instant::now(), busy());
        }
        gauge
    }
}

impl LoadGauge {
    fn update(&mut self, now: Instant, busy: Vec<Duration>) {
        let passed_us = now.saturating_duration_since(self.sampled_at).as_micros().max(1);
        let percent = |(now, before): (&Duration, &Duration)| {
            u32::try_from(100 * now.saturating_sub(*before).as_micros() / passed_us).unwrap_or(100).min(100)
        };
        self.percent = busy.iter().zip(&self.busy).map(percent).collect();
        self.overloaded = self.percent.iter().map(|percent| *percent >= OVERLOADED_PERCENT).collect();
        (self.busy, self.sampled_at) = (busy, now);
    }

    fn try_reserve(&mut self, n: usize, percent: u32) -> bool {
        let Some(now) = self.percent.get_mut(n).filter(|now| **now < BUSY_PERCENT) else { return false };
        *now += percent;
        true
    }

    fn claim_migration(&mut self, n: usize) -> bool {
        self.overloaded.get_mut(n).is_some_and(std::mem::take)
    }
}

fn choose_worker(percent: &[u32], connections: &[Option<usize>], max_lead: usize) -> Option<usize> {
    let fewest = connections.iter().flatten().min()?;
    let mut usable = percent
        .iter()
        .zip(connections)
        .enumerate()
        .filter_map(|(n, (percent, connections))| Some((n, *percent, (*connections)?)));
    let least = usable.clone().min_by_key(|(_, percent, connections)| (*percent, *connections));
    let first = usable.find(|(_, percent, connections)| *percent < BUSY_PERCENT && *connections < fewest + max_lead);
    first.or(least).map(|(n, ..)| n)
}

const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
const BUSY_PERCENT: u32 = 50;
const OVERLOADED_PERCENT: u32 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(percent: &[u32], connections: &[usize]) -> Option<usize> {
        choose_worker(percent, &connections.iter().copied().map(Some).collect::<Vec<_>>(), 1_024)
    }

    #[test]
    fn first_thread_with_capacity_is_filled_up_to_the_maximum_lead() {
        assert_eq!(chosen(&[0, 0, 0], &[900, 0, 0]), Some(0));
        assert_eq!(chosen(&[60, 10, 0], &[10, 3, 0]), Some(1));
        assert_eq!(chosen(&[0, 0], &[1_030, 6]), Some(1));
        assert_eq!(chosen(&[90, 70, 80], &[1, 1, 1]), Some(1), "all busy: the least");
        assert_eq!(chosen(&[90, 20], &[0, 1_024]), Some(1), "all busy or ahead: the least busy");
    }

    #[test]
    fn excluded_thread_gets_no_connection() {
        assert_eq!(choose_worker(&[0, 90, 95], &[None, Some(7), Some(0)], 10), Some(1));
        assert_eq!(choose_worker(&[0, 0], &[None, None], 10), None);
    }

    #[test]
    fn busy_percentage_covers_the_time_since_the_last_sample() {
        let (at, ms) = (Instant::now(), Duration::from_millis);
        let mut gauge = LoadGauge { busy: vec![ms(1_000), ms(0)], ..gauge(at) };
        gauge.update(at + ms(200), vec![ms(1_050), ms(300)]);
        assert_eq!((&gauge.percent[..], &gauge.overloaded[..]), (&[25, 100][..], &[false, true][..]));
        gauge.update(at + ms(400), vec![ms(1_050), ms(300)]);
        assert_eq!((&gauge.percent[..], &gauge.overloaded[..]), (&[0, 0][..], &[false; 2][..]));
    }

    #[test]
    fn work_that_starts_at_once_is_spread_over_threads() {
        let mut gauge = gauge(Instant::now());
        let started = (0..100).take_while(|_| gauge.try_reserve(0, 10)).count();
        assert_eq!(started, 5);
        assert!(
            gauge.try_reserve(1, 10) && !gauge.try_reserve(2, 10),
            "thread 1 has capacity, and there is no thread 2"
        );
    }

    #[test]
    fn one_piece_of_work_leaves_an_overloaded_thread_per_sample() {
        let at = Instant::now();
        let mut gauge = gauge(at);
        gauge.update(at + SAMPLE_INTERVAL, vec![SAMPLE_INTERVAL, Duration::ZERO]);
        let migrations = [0, 0, 1, 2].map(|n| gauge.claim_migration(n));
        assert_eq!(migrations, [true, false, false, false]);
    }

    fn gauge(at: Instant) -> LoadGauge {
        LoadGauge { sampled_at: at, busy: vec![Duration::ZERO; 2], percent: vec![0; 2], overloaded: vec![false; 2] }
    }
}
