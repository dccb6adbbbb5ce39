//! What viewers saw, counted by all of them together.
//!
//! Counters only grow; a measurement is the difference of two snapshots. Latencies are kept only while a window is
//! open. This file must not know which protocol the viewers speak.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

/// Shared by the viewers of one case.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: AtomicU64,
    packets: AtomicU64,
    frames: AtomicU64,
    lost: AtomicU64,
    failed: AtomicU64,
    sampling: AtomicBool,
    latencies_us: Mutex<Vec<u32>>,
    joins_us: Mutex<Vec<u32>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Payload bytes as the viewer's socket gave them.
    pub(crate) bytes: u64,
    /// RTP packets, or HTTP answers, or RTMP messages.
    pub(crate) packets: u64,
    /// Pictures seen whole.
    pub(crate) frames: u64,
    /// Pictures (RTMP) or packets (RTP) that never came.
    pub(crate) lost: u64,
    /// Viewers that ended before they were told to.
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn add_bytes(&self, n: usize) {
        self.bytes.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_packets(&self, n: usize) {
        self.packets.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_lost(&self, n: u64) {
        self.lost.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a latency if a window is open.
    pub(crate) fn latency_us(&self, us: u32) {
        if self.sampling.load(Ordering::Relaxed) {
            push(&self.latencies_us, us);
        }
    }

    /// A viewer has its first picture or packet, this long after it asked.
    pub(crate) fn joined_us(&self, us: u32) {
        push(&self.joins_us, us);
    }

    /// How many viewers have joined so far.
    pub(crate) fn joined(&self) -> usize {
        self.joins_us.lock().map_or(0, |v| v.len())
    }

    /// Begins or ends the time in which latencies are kept.
    pub(crate) fn set_sampling(&self, sampling: bool) {
        self.sampling.store(sampling, Ordering::Relaxed);
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            bytes: read(&self.bytes),
            packets: read(&self.packets),
            frames: read(&self.frames),
            lost: read(&self.lost),
            failed: read(&self.failed),
        }
    }

    /// Latencies kept since the last call.
    pub(crate) fn take_latencies(&self) -> Option<Percentiles> {
        Percentiles::of(self.latencies_us.lock().map(|mut v| std::mem::take(&mut *v)).unwrap_or_default())
    }

    /// Join times of all viewers so far.
    pub(crate) fn joins(&self) -> Option<Percentiles> {
        Percentiles::of(self.joins_us.lock().map(|v| v.clone()).unwrap_or_default())
    }
}

fn push(samples: &Mutex<Vec<u32>>, us: u32) {
    if let Ok(mut samples) = samples.lock()
        && samples.len() < MAX_SAMPLES
    {
        samples.push(us);
    }
}

/// More than 500 viewers of 30 pictures a second make in ten minutes.
const MAX_SAMPLES: usize = 10_000_000;

/// Percentiles of a set of times, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// `None` if there are no samples. Nearest rank.
    pub(crate) fn of(mut us: Vec<u32>) -> Option<Self> {
        us.sort_unstable();
        let max = f64::from(*us.last()?) / 1e3;
        let at = |q: f64| f64::from(us[((us.len() as f64 * q).ceil() as usize).clamp(1, us.len()) - 1]) / 1e3;
        Some(Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let p = Percentiles::of((1..=100).rev().map(|n| n * 1_000).collect()).unwrap();
        assert_eq!((p.p50, p.p90, p.p99, p.max), (50.0, 90.0, 99.0, 100.0));
        assert!(Percentiles::of(Vec::new()).is_none());
    }
}
