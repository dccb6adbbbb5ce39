//! Randomized pauses between calls. Nodes whose calls once coincided, at the end of an outage or of
//! a stall, must not call in step from then on.
//!
//! Values only: time and randomness are arguments. `random` is a number from 0 to 1 that each node
//! draws for itself.

use std::time::Duration;

use crate::Timing;

/// The pauses between the renewals of one node.
#[derive(Debug, Clone)]
pub struct HeartbeatInterval {
    interval: Duration,
    unreachable: bool,
}

impl HeartbeatInterval {
    /// For a registry with this timing, assumed to be reachable.
    pub fn new(timing: &Timing) -> Self {
        Self { interval: timing.heartbeat_interval, unreachable: false }
    }

    /// The pause before the first call: anywhere within the interval, so that nodes that start
    /// together do not renew together.
    pub fn initial_delay(&self, random: f64) -> Duration {
        self.interval.mul_f64(random)
    }

    /// The pause after a call; `answered` is false if the registry did not answer it.
    pub fn next_delay(&mut self, answered: bool, random: f64) -> Duration {
        let was_unreachable = std::mem::replace(&mut self.unreachable, !answered);
        let (min, max) = match (answered, was_unreachable) {
            (true, false) => STEADY_FACTORS,
            // All nodes that were waiting for the registry have just been answered together.
            (true, true) => RECOVERY_FACTORS,
            (false, _) => UNREACHABLE_FACTORS,
        };
        self.interval.mul_f64(min + (max - min) * random)
    }
}

/// A pause between two attempts to reach something, between half and one and a half times as long.
pub fn jitter(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random)
}

/// Minimum and maximum pause, in intervals. Shorter than a lease even if the calls before and after
/// it take as long as they may.
const STEADY_FACTORS: (f64, f64) = (0.8, 1.2);
/// As wide as the interval.
const RECOVERY_FACTORS: (f64, f64) = (0.2, 1.2);
/// Short, because leases may expire meanwhile; not so short that most nodes have a call pending at
/// any moment.
const UNREACHABLE_FACTORS: (f64, f64) = (0.4, 0.8);

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers from 0 to 1 (Knuth's generator), the same in each run.
    fn randoms(seed: u64) -> impl Iterator<Item = f64> {
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(next(&seed), next).map(|state| (state >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The greatest number of calls within any 100 ms.
    fn peak(mut times: Vec<Duration>) -> usize {
        times.sort_unstable();
        let within =
            |at: usize| times[at..].iter().take_while(|t| **t - times[at] < Duration::from_millis(100)).count();
        (0..times.len()).map(within).max().unwrap_or_default()
    }

    #[test]
    fn pauses_are_within_bounds_and_a_lease_outlasts_one_failed_call() {
        let timing = Timing::default();
        for seed in 0..200 {
            let mut interval = HeartbeatInterval::new(&timing);
            let mut randoms = randoms(seed);
            let mut check = |interval: &mut HeartbeatInterval, answered: bool, min_ms: u64, max_ms: u64| {
                let pause = interval.next_delay(answered, randoms.next().unwrap());
                assert!((min_ms..=max_ms).contains(&(pause.as_millis() as u64)), "{pause:?}");
            };
            check(&mut interval, true, 4_000, 6_000);
            check(&mut interval, false, 2_000, 4_000);
            check(&mut interval, false, 2_000, 4_000);
            check(&mut interval, true, 1_000, 6_000);
            check(&mut interval, true, 4_000, 6_000);
            assert!(interval.initial_delay(0.999) < timing.heartbeat_interval);
        }
        // The longest pause, a call that fails after its three seconds, the longest pause after
        // that.
        let silent =
            timing.heartbeat_interval.mul_f64(STEADY_FACTORS.1 + UNREACHABLE_FACTORS.1) + Duration::from_secs(3);
        assert!(silent < timing.lease, "{silent:?}");
    }

    #[test]
    fn thousand_nodes_answered_at_one_moment_do_not_call_in_step_again() {
        let (nodes, interval) = (1_000, Timing::default().heartbeat_interval);
        let even = nodes * 100 / interval.as_millis() as usize;
        let mut randoms = randoms(7);
        let mut next_calls: Vec<(HeartbeatInterval, Duration)> = (0..nodes)
            .map(|_| {
                let mut interval = HeartbeatInterval::new(&Timing::default());
                interval.next_delay(false, 0.5);
                (interval, Duration::ZERO)
            })
            .collect();
        for round in 1..=20 {
            for (interval, at) in &mut next_calls {
                *at += interval.next_delay(true, randoms.next().unwrap());
            }
            let peak = peak(next_calls.iter().map(|(_, at)| *at).collect());
            assert!(peak <= 2 * even, "round {round}: {peak} calls within 100 ms, {even} if they were spread evenly");
        }
    }

    #[test]
    fn nodes_that_wait_for_a_registry_do_not_retry_in_step() {
        let mut randoms = randoms(3);
        let pause = Duration::from_secs(3);
        let times: Vec<_> = (0..1_000).map(|_| jitter(pause, randoms.next().unwrap())).collect();
        assert!(times.iter().all(|t| (pause / 2..=pause * 3 / 2).contains(t)));
        assert!(peak(times) <= 66, "twice an even spread");
    }
}
