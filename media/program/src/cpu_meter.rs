//! CPU usage, computed from the text of `/proc/stat` (proc_stat(5)). A value; reads no file.

/// CPU usage over the last samples.
#[derive(Debug, Default)]
pub struct CpuMeter {
    /// Busy ticks and all ticks since boot, oldest sample first.
    samples: std::collections::VecDeque<(u64, u64)>,
}

impl CpuMeter {
    /// Adds a sample, the text of `/proc/stat`. Returns the usage of all cores together since the
    /// sample five calls earlier, in permille.
    pub fn usage_permille(&mut self, stat: &str) -> u32 {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        // Fields `idle` and `iowait`.
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        self.samples.push_back((all - idle, all));
        if self.samples.len() > SMOOTHING_SAMPLES + 1 {
            self.samples.pop_front();
        }
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0 };
        let (busy, all) = (last.0.saturating_sub(first.0), last.1.saturating_sub(first.1).max(1));
        u32::try_from((busy.saturating_mul(1_000) / all).min(1_000)).unwrap_or(1_000)
    }
}

/// Number of sampling intervals that are averaged: one busy second must not make a node full.
const SMOOTHING_SAMPLES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_averaged_over_the_last_samples() {
        let mut meter = CpuMeter::default();
        meter.usage_permille("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n");
        assert_eq!(meter.usage_permille("cpu  150 0 100 850 100 0 0 0 0 0\n"), 250);
        for n in 1..=5 {
            meter.usage_permille(&format!("cpu  150 0 100 {} 100 0 0 0 0 0\n", 850 + 100 * n));
        }
        assert_eq!(meter.usage_permille("cpu  150 0 100 1450 100 0 0 0 0 0\n"), 0);
        assert_eq!(CpuMeter::default().usage_permille(""), 0);
        assert_eq!(CpuMeter::default().usage_permille("cpu x"), 0);
    }
}
