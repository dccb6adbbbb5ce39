//! When to call again: nodes whose calls have met once, at the end of an outage or of a stall, must not meet for ever.
//!
//! A value: it knows no clock, and chance is an argument, a number from 0 to 1 that is each node's own.

use std::time::Duration;

use crate::Timing;

/// The pauses of a node that renews what it holds.
#[derive(Debug, Clone)]
pub struct HeartbeatInterval {
    heartbeat: Duration,
    unreachable: bool,
}

impl HeartbeatInterval {
    /// Of a registry with this timing, which is there.
    pub fn new(timing: &Timing) -> Self {
        Self { heartbeat: timing.heartbeat, unreachable: false }
    }

    /// Before the first call: anywhere within the interval, since nodes that start together do not beat together.
    pub fn initial(&self, chance: f64) -> Duration {
        self.heartbeat.mul_f64(chance)
    }

    /// After a call that was `answered`, or was not.
    pub fn after(&mut self, answered: bool, chance: f64) -> Duration {
        let was_away = std::mem::replace(&mut self.unreachable, !answered);
        let (least, most) = match (answered, was_away) {
            (true, false) => STEADY_FACTORS,
            // All who were waiting for the registry have been answered at once.
            (true, true) => RECOVERY_FACTORS,
            (false, _) => UNREACHABLE_FACTORS,
        };
        self.heartbeat.mul_f64(least + (most - least) * chance)
    }
}

/// A pause between two attempts at something that is away, half as long to half as long again.
pub fn jitter(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.5 + chance)
}

/// In intervals, from and to. Less than a lease even if the call before and the call after take as long as they may.
const STEADY_FACTORS: (f64, f64) = (0.8, 1.2);
/// As wide as the interval.
const RECOVERY_FACTORS: (f64, f64) = (0.2, 1.2);
/// Soon, since what is held may be lost meanwhile; not so soon that most would be waiting at any moment.
const UNREACHABLE_FACTORS: (f64, f64) = (0.4, 0.8);

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from 0 to 1 that look random (Knuth's generator), the same in each run.
    fn chances(seed: u64) -> impl Iterator<Item = f64> {
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(next(&seed), next).map(|state| (state >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Most of the calls within any 100 ms.
    fn peak(mut times: Vec<Duration>) -> usize {
        times.sort_unstable();
        let within =
            |at: usize| times[at..].iter().take_while(|t| **t - times[at] < Duration::from_millis(100)).count();
        (0..times.len()).map(within).max().unwrap_or_default()
    }

    #[test]
    fn every_pause_lies_in_its_bounds_and_the_lease_outlasts_one_failed_call() {
        let timing = Timing::default();
        for seed in 0..200 {
            let mut pace = HeartbeatInterval::new(&timing);
            let mut chances = chances(seed);
            let mut check = |pace: &mut HeartbeatInterval, answered: bool, least_ms: u64, most_ms: u64| {
                let pause = pace.after(answered, chances.next().unwrap());
                assert!((least_ms..=most_ms).contains(&(pause.as_millis() as u64)), "{pause:?}");
            };
            check(&mut pace, true, 4_000, 6_000);
            check(&mut pace, false, 2_000, 4_000);
            check(&mut pace, false, 2_000, 4_000);
            check(&mut pace, true, 1_000, 6_000);
            check(&mut pace, true, 4_000, 6_000);
            assert!(pace.initial(0.999) < timing.heartbeat);
        }
        // The longest pause, a call that fails at the end of its three seconds, the longest pause after that.
        let silent = timing.heartbeat.mul_f64(STEADY_FACTORS.1 + UNREACHABLE_FACTORS.1) + Duration::from_secs(3);
        assert!(silent < timing.lease, "{silent:?}");
    }

    #[test]
    fn a_thousand_nodes_that_were_answered_in_one_moment_do_not_meet_again() {
        let (nodes, interval) = (1_000, Timing::default().heartbeat);
        let even = nodes * 100 / interval.as_millis() as usize;
        let mut chances = chances(7);
        let mut paces: Vec<(HeartbeatInterval, Duration)> = (0..nodes)
            .map(|_| {
                let mut pace = HeartbeatInterval::new(&Timing::default());
                pace.after(false, 0.5);
                (pace, Duration::ZERO)
            })
            .collect();
        for round in 1..=20 {
            for (pace, at) in &mut paces {
                *at += pace.after(true, chances.next().unwrap());
            }
            let peak = peak(paces.iter().map(|(_, at)| *at).collect());
            assert!(peak <= 2 * even, "round {round}: {peak} calls within 100 ms, {even} if they were spread evenly");
        }
    }

    #[test]
    fn nodes_that_all_wait_for_a_registry_do_not_ask_in_step() {
        let mut chances = chances(3);
        let pause = Duration::from_secs(3);
        let times: Vec<_> = (0..1_000).map(|_| jitter(pause, chances.next().unwrap())).collect();
        assert!(times.iter().all(|t| (pause / 2..=pause * 3 / 2).contains(t)));
        assert!(peak(times) <= 66, "twice an even spread");
    }
}
