//! Metrics of this process and of its streams, read at each scrape. See proc_pid_stat(5).

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::hub::Hub;

/// Clock ticks per second in `/proc`; Linux uses this value on every platform.
const USER_HZ: f64 = 100.0;

/// CPU, memory and open files, under the standard names of Prometheus.
#[derive(Debug)]
pub struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let cpu = ConstCounter::new(cpu_seconds(&stat));
        let seconds = "Processor time used, user and system, in seconds";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", seconds, None, MetricType::Counter)?)?;
        let mut gauge = |name, help, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("process_resident_memory_bytes", "Memory in use, in bytes", resident_bytes(&statm, page_bytes()))?;
        gauge("process_open_fds", "Open files and sockets", files as u64)
    }
}

/// The sum of fields 14 and 15. Counts fields after the program name, which may contain spaces and
/// parentheses.
fn cpu_seconds(stat: &str) -> f64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks as f64 / USER_HZ
}

/// The second field, converted from pages.
fn resident_bytes(statm: &str, page_bytes: u64) -> u64 {
    statm.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0).saturating_mul(page_bytes)
}

/// The size of a memory page (`sysconf(_SC_PAGESIZE)`): 4 KiB on x86-64; 4, 16 or 64 KiB on
/// AArch64.
fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Streams, viewers and received bytes of the hub.
#[derive(Debug)]
pub struct StreamMetrics(pub Hub);

impl Collector for StreamMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let streams: Vec<_> = self.0.streams().iter().map(|s| s.status()).collect();
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(streams.len() as u64).encode(encoder.encode_descriptor(
            "streams",
            "Live streams",
            None,
            MetricType::Gauge,
        )?)?;
        let mut viewers = encoder.encode_descriptor("viewers", "Viewers now", None, MetricType::Gauge)?;
        let sum =
            |pick: fn(&headwater_api::documents::ViewerCounts) -> u64| streams.iter().map(|s| pick(&s.viewers)).sum();
        for (protocol, count) in [("webrtc", sum(|v| v.webrtc)), ("hls", sum(|v| v.hls)), ("rtmp", sum(|v| v.rtmp))] {
            gauge(count).encode(viewers.encode_family(&[("protocol", protocol)])?)?;
        }
        let mut received = encoder.encode_descriptor(
            "stream_received_bytes",
            "Payload bytes received since the stream started",
            None,
            MetricType::Counter,
        )?;
        for status in &streams {
            let counter = ConstCounter::new(status.received_bytes);
            counter.encode(received.encode_family(&[("stream", status.name.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "17 (a) b) (c) S 1 17 17 0 -1 4194560 5 6 7 8 250 50 9 10 20 0 3 0 100 200 300";
        assert!((cpu_seconds(stat) - 3.0).abs() < 1e-9);
        assert!((cpu_seconds("") - 0.0).abs() < 1e-9);
    }

    #[test]
    fn resident_memory_is_counted_in_pages_of_the_system() {
        assert_eq!(resident_bytes("100 7 3", 4 << 10), 28 << 10);
        assert_eq!(resident_bytes("100 7 3", 64 << 10), 448 << 10);
        assert_eq!(resident_bytes("", 4 << 10), 0);
        assert_eq!(page_bytes(), measured_page_bytes());
    }

    /// The kernel's own figure, from `/proc/self/smaps`.
    fn measured_page_bytes() -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let line = smaps.lines().find_map(|line| line.strip_prefix("KernelPageSize:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}
