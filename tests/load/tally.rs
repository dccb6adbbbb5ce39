//! Counters and latencies, shared by all viewers of a case.
//!
//! Counters only grow; a measurement is the difference of two snapshots. Latencies are kept only
//! while sampling is enabled. This file must not know the protocol of the viewers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

/// Counters and samples of the viewers of one case.
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

/// A snapshot of the counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Bytes read from the viewers' sockets.
    pub(crate) bytes: u64,
    /// RTP packets, HTTP responses or RTMP messages.
    pub(crate) packets: u64,
    /// Complete video frames.
    pub(crate) frames: u64,
    /// Frames (RTMP) or packets (RTP) that were never received.
    pub(crate) lost: u64,
    /// Viewers that ended before they were stopped.
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

    /// Records a latency while sampling is enabled, in microseconds.
    pub(crate) fn record_latency_us(&self, us: u32) {
        if self.sampling.load(Ordering::Relaxed) {
            push(&self.latencies_us, us);
        }
    }

    /// Records a join: the time from a viewer's request to its first frame
    /// or packet, in microseconds.
    pub(crate) fn record_join_us(&self, us: u32) {
        push(&self.joins_us, us);
    }

    /// Number of viewers that have joined so far.
    pub(crate) fn joined(&self) -> usize {
        self.joins_us.lock().map_or(0, |v| v.len())
    }

    /// Enables or disables the sampling of latencies.
    pub(crate) fn set_sampling(&self, sampling: bool) {
        self.sampling.store(sampling, Ordering::Relaxed);
    }

    /// The current counters.
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

    /// Latencies sampled since the last call.
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

/// More samples than 500 viewers at 30 frames per second produce in ten minutes.
const MAX_SAMPLES: usize = 10_000_000;

/// Percentiles of a set of durations, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// Computes the percentiles by nearest rank; `None` without samples.
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
