//! Which of several threads gets the next connection: the first that is less than half busy.
//!
//! Work that one thread can do costs less there than on several: each would have to be woken for its share of every frame.
//! Must not know what a connection is for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Fills threads one after another.
#[derive(Debug)]
pub struct Fill {
    most_ahead: usize,
    gauge: Mutex<Gauge>,
}

/// What the threads have done lately.
#[derive(Debug)]
struct Gauge {
    at: Instant,
    /// How long each was busy until then, since it began.
    busy: Vec<Duration>,
    /// Which share of the time before that moment, in percent; what work begun since then will come to included.
    percent: Vec<u32>,
    /// Work may move away from this thread, some of it after each look.
    crowded: Vec<bool>,
}

impl Fill {
    /// For so many threads. None gets `most_ahead` connections more than another: those who are quiet now, or have only just
    /// come, may all wake at once.
    pub fn new(threads: usize, most_ahead: usize) -> Self {
        let gauge = Gauge {
            at: Instant::now(),
            busy: vec![Duration::ZERO; threads],
            percent: vec![0; threads],
            crowded: vec![false; threads],
        };
        Self { most_ahead, gauge: Mutex::new(gauge) }
    }

    /// The next one's thread: the first that is less than half busy; where there is none, the least busy one. `open`: the
    /// connections of each, `None` for one that must get no more; `busy`: how long each was busy since it began. `None` if
    /// all must get no more.
    pub fn pick(&self, open: &[Option<usize>], busy: impl FnOnce() -> Vec<Duration>) -> Option<usize> {
        choose(&self.look(busy).percent, open, self.most_ahead)
    }

    /// True if thread `n` is less than half busy: then work may begin there that will make it busier by so many percent.
    pub fn begin(&self, n: usize, percent: u32, busy: impl FnOnce() -> Vec<Duration>) -> bool {
        self.look(busy).begin(n, percent)
    }

    /// True if thread `n` is so busy that a piece of work should move away. Each look says so to one piece of work: the next
    /// look shows if that was enough.
    pub fn must_one_leave(&self, n: usize, busy: impl FnOnce() -> Vec<Duration>) -> bool {
        self.look(busy).must_one_leave(n)
    }

    /// Looks no more: every thread is crowded until something has left it.
    #[cfg(test)]
    pub(crate) fn crowd(&self) {
        let mut gauge = self.gauge.lock().unwrap();
        gauge.crowded.fill(true);
        gauge.at = Instant::now() + Duration::from_secs(3_600);
    }

    /// True if something should still leave thread `n`.
    #[cfg(test)]
    pub(crate) fn is_crowded(&self, n: usize) -> bool {
        self.gauge.lock().unwrap().crowded[n]
    }

    fn look(&self, busy: impl FnOnce() -> Vec<Duration>) -> MutexGuard<'_, Gauge> {
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        if gauge.at.elapsed() >= LOOK_EVERY {
            gauge.look(Instant::now(), busy());
        }
        gauge
    }
}

impl Gauge {
    fn look(&mut self, now: Instant, busy: Vec<Duration>) {
        let passed_us = now.saturating_duration_since(self.at).as_micros().max(1);
        let percent = |(now, before): (&Duration, &Duration)| {
            u32::try_from(100 * now.saturating_sub(*before).as_micros() / passed_us).unwrap_or(100).min(100)
        };
        self.percent = busy.iter().zip(&self.busy).map(percent).collect();
        self.crowded = self.percent.iter().map(|percent| *percent >= CROWDED_PERCENT).collect();
        (self.busy, self.at) = (busy, now);
    }

    fn begin(&mut self, n: usize, percent: u32) -> bool {
        let Some(now) = self.percent.get_mut(n).filter(|now| **now < BUSY_PERCENT) else { return false };
        *now += percent;
        true
    }

    fn must_one_leave(&mut self, n: usize) -> bool {
        self.crowded.get_mut(n).is_some_and(std::mem::take)
    }
}

fn choose(percent: &[u32], open: &[Option<usize>], most_ahead: usize) -> Option<usize> {
    let fewest = open.iter().flatten().min()?;
    let mut usable =
        percent.iter().zip(open).enumerate().filter_map(|(n, (percent, open))| Some((n, *percent, (*open)?)));
    let least = usable.clone().min_by_key(|(_, percent, open)| (*percent, *open));
    let first = usable.find(|(_, percent, open)| *percent < BUSY_PERCENT && *open < fewest + most_ahead);
    first.or(least).map(|(n, ..)| n)
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const BUSY_PERCENT: u32 = 50;
const CROWDED_PERCENT: u32 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(percent: &[u32], open: &[usize]) -> Option<usize> {
        choose(percent, &open.iter().copied().map(Some).collect::<Vec<_>>(), 1_024)
    }

    #[test]
    fn the_first_that_has_room_is_filled_and_none_gets_far_ahead() {
        assert_eq!(chosen(&[0, 0, 0], &[900, 0, 0]), Some(0));
        assert_eq!(chosen(&[60, 10, 0], &[10, 3, 0]), Some(1));
        assert_eq!(chosen(&[0, 0], &[1_030, 6]), Some(1));
        assert_eq!(chosen(&[90, 70, 80], &[1, 1, 1]), Some(1), "all busy: the least");
        assert_eq!(chosen(&[90, 20], &[0, 1_024]), Some(1), "all busy or ahead: the least busy");
    }

    #[test]
    fn one_that_must_get_no_more_gets_none() {
        assert_eq!(choose(&[0, 90, 95], &[None, Some(7), Some(0)], 10), Some(1));
        assert_eq!(choose(&[0, 0], &[None, None], 10), None);
    }

    #[test]
    fn a_thread_is_as_busy_as_it_was_since_the_last_look() {
        let (at, ms) = (Instant::now(), Duration::from_millis);
        let mut gauge = Gauge { busy: vec![ms(1_000), ms(0)], ..gauge(at) };
        gauge.look(at + ms(200), vec![ms(1_050), ms(300)]);
        assert_eq!((&gauge.percent[..], &gauge.crowded[..]), (&[25, 100][..], &[false, true][..]));
        gauge.look(at + ms(400), vec![ms(1_050), ms(300)]);
        assert_eq!((&gauge.percent[..], &gauge.crowded[..]), (&[0, 0][..], &[false; 2][..]));
    }

    #[test]
    fn much_that_begins_at_once_does_not_all_begin_on_one_thread() {
        let mut gauge = gauge(Instant::now());
        let begun = (0..100).take_while(|_| gauge.begin(0, 10)).count();
        assert_eq!(begun, 5);
        assert!(gauge.begin(1, 10) && !gauge.begin(2, 10), "another has room, and there is no third");
    }

    #[test]
    fn of_what_crowds_a_thread_one_leaves_at_a_look() {
        let at = Instant::now();
        let mut gauge = gauge(at);
        gauge.look(at + LOOK_EVERY, vec![LOOK_EVERY, Duration::ZERO]);
        let must = [0, 0, 1, 2].map(|n| gauge.must_one_leave(n));
        assert_eq!(must, [true, false, false, false]);
    }

    fn gauge(at: Instant) -> Gauge {
        Gauge { at, busy: vec![Duration::ZERO; 2], percent: vec![0; 2], crowded: vec![false; 2] }
    }
}
