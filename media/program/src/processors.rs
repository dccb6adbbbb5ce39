//! How busy the processors are, from what the kernel says: a value. proc_stat(5).

/// How busy the cores were over the last looks.
#[derive(Debug, Default)]
pub struct Processors {
    /// Busy and all ticks, oldest first.
    looks: std::collections::VecDeque<(u64, u64)>,
}

impl Processors {
    /// In thousandths of all cores, over the last five calls. `stat` is the text of `/proc/stat`.
    pub fn busy_permille(&mut self, stat: &str) -> u32 {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        // Idle, and waiting for a disk.
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        self.looks.push_back((all - idle, all));
        if self.looks.len() > SMOOTHED + 1 {
            self.looks.pop_front();
        }
        let (Some(first), Some(last)) = (self.looks.front(), self.looks.back()) else { return 0 };
        let (busy, all) = (last.0.saturating_sub(first.0), last.1.saturating_sub(first.1).max(1));
        u32::try_from((busy.saturating_mul(1_000) / all).min(1_000)).unwrap_or(1_000)
    }
}

/// Looks over which the processors are averaged: one busy second is no reason to turn anybody away.
const SMOOTHED: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_counted_over_the_last_looks() {
        let mut processors = Processors::default();
        processors.busy_permille("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n");
        assert_eq!(processors.busy_permille("cpu  150 0 100 850 100 0 0 0 0 0\n"), 250);
        for n in 1..=5 {
            processors.busy_permille(&format!("cpu  150 0 100 {} 100 0 0 0 0 0\n", 850 + 100 * n));
        }
        assert_eq!(processors.busy_permille("cpu  150 0 100 1450 100 0 0 0 0 0\n"), 0);
        assert_eq!(Processors::default().busy_permille(""), 0);
        assert_eq!(Processors::default().busy_permille("cpu x"), 0);
    }
}
