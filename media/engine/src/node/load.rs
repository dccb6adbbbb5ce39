//! Measures the load of this machine once a second: CPU use and egress to viewers.
//!
//! These are the resources that run out: all cores together, and the interfaces towards viewers,
//! packet headers included. Pure functions parse the kernel's text; unreadable files count as no
//! load. See proc_stat(5), proc_net(5) and sysfs-class-net.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use headwater_api::config;
use headwater_api::documents::{Load, MAX_WATCHED, StreamViewers, ViewerCounts};
use headwater_program::cpu_meter::CpuMeter;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::node::health::NodeHealthReceiver;
use crate::runtime::stages::Stages;

/// Holds the latest measurement; clones share it.
#[derive(Debug, Clone)]
pub struct LoadMeter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// True if all viewers are on this machine: measures `lo`.
    loopback: bool,
    cpu_permille: AtomicU32,
    egress_bps: AtomicU64,
    /// 0 if unknown.
    capacity_bps: AtomicU64,
    capacity_is_configured: bool,
}

impl LoadMeter {
    /// All values are 0 until [`LoadMeter::run`] has measured.
    pub fn new(config: &config::Config) -> Self {
        let configured_bps = config.limits.egress_mbps.map_or(0, |mbps| u64::from(mbps.get()) * 1_000_000);
        let addresses = &config.node.addresses;
        let hidden = !addresses.is_empty() && addresses.iter().all(std::net::IpAddr::is_loopback);
        Self(Arc::new(Inner {
            loopback: hidden || serves_loopback_only(&config.http),
            cpu_permille: AtomicU32::new(0),
            egress_bps: AtomicU64::new(0),
            capacity_bps: AtomicU64::new(configured_bps),
            capacity_is_configured: configured_bps != 0,
        }))
    }

    /// Adds the measurement to the stages. It runs until the drain is complete.
    pub fn mount(&self, node_health: NodeHealthReceiver, stages: &mut Stages) {
        stages.add_background(self.clone().run(node_health, CancellationToken::new()));
    }

    /// Measures until `stop` is cancelled. The egress capacity is the configured one, else the one
    /// in the daemon's health report, else the link speed of the interfaces.
    pub async fn run(self, node_health: NodeHealthReceiver, stop: CancellationToken) {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut processors, mut egress_meter) = (CpuMeter::default(), EgressMeter::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let interfaces = interfaces(&read("/proc/net/route"), &read("/proc/net/ipv6_route"), self.0.loopback);
            self.0.cpu_permille.store(processors.usage_permille(&read("/proc/stat")), Ordering::Relaxed);
            let egress_bps = egress_meter.sample_bps(&read("/proc/net/dev"), &interfaces, Instant::now());
            self.0.egress_bps.store(egress_bps, Ordering::Relaxed);
            if !self.0.capacity_is_configured {
                let reported_bps = node_health.latest().map_or(0, |health| health.egress_capacity_bps);
                let capacity_bps = if reported_bps == 0 { link_bps(&interfaces) } else { reported_bps };
                self.0.capacity_bps.store(capacity_bps, Ordering::Relaxed);
            }
        }
    }

    /// The load of this machine together with the streams and viewers of the hub.
    pub fn load(&self, hub: &Hub) -> Load {
        let (mut streams, mut viewers_by) = (0, ViewerCounts::default());
        for stream in hub.streams() {
            streams += u32::from(!stream.is_relayed());
            let viewers = stream.viewers();
            viewers_by.webrtc += viewers.webrtc;
            viewers_by.hls += viewers.hls;
            viewers_by.rtmp += viewers.rtmp;
        }
        Load {
            cpu_permille: self.0.cpu_permille.load(Ordering::Relaxed),
            streams,
            viewers: u32::try_from(total(viewers_by)).unwrap_or(u32::MAX),
            viewers_by,
            egress_bps: self.0.egress_bps.load(Ordering::Relaxed),
            egress_capacity_bps: self.0.capacity_bps.load(Ordering::Relaxed),
        }
    }
}

/// Viewers of each stream that has any, most viewers first, at most `MAX_WATCHED` streams.
pub fn stream_viewers(hub: &Hub) -> Vec<StreamViewers> {
    let all = hub.streams().into_iter().map(|s| StreamViewers {
        name: s.name().clone(),
        viewers: u32::try_from(total(s.viewers())).unwrap_or(u32::MAX),
    });
    let mut watched: Vec<_> = all.filter(|w| w.viewers > 0).collect();
    watched.sort_by_key(|w| std::cmp::Reverse(w.viewers));
    watched.truncate(MAX_WATCHED);
    watched
}

fn total(viewers_by: ViewerCounts) -> u64 {
    viewers_by.webrtc + viewers_by.hls + viewers_by.rtmp
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// True if the web server listens, and only on loopback.
fn serves_loopback_only(http: &config::Http) -> bool {
    let mut addresses = [http.listen, http.tls_listen].into_iter().filter_map(config::Listen::address).peekable();
    addresses.peek().is_some() && addresses.all(|address| address.ip().is_loopback())
}

/// The interfaces towards viewers: those of a default route, else all except `lo`. Only `lo` if all
/// viewers are on this machine.
fn interfaces(route: &str, ipv6_route: &str, loopback: bool) -> Interfaces {
    if loopback {
        return Interfaces::Named(vec!["lo".to_owned()]);
    }
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    // Columns: IPv4 interface, destination, …; IPv6 destination, prefix length, …, interface.
    let v4 = route.lines().map(words).filter(|w| w.get(1).is_some_and(|to| to == "00000000")).map(|w| w[0].clone());
    let v6 = ipv6_route.lines().map(words).filter(|w| w.len() == 10 && w[0].bytes().all(|b| b == b'0') && w[1] == "00");
    let mut found: Vec<_> = v4.chain(v6.map(|w| w[9].clone())).filter(|name| name != "lo").collect();
    found.sort();
    found.dedup();
    if found.is_empty() { Interfaces::AllExceptLoopback } else { Interfaces::Named(found) }
}

#[derive(Debug, PartialEq, Eq)]
enum Interfaces {
    Named(Vec<String>),
    AllExceptLoopback,
}

impl Interfaces {
    fn includes(&self, name: &str) -> bool {
        match self {
            Self::Named(names) => names.iter().any(|n| n == name),
            Self::AllExceptLoopback => name != "lo",
        }
    }
}

/// The sum of the interfaces' link speeds, in bit/s; 0 if one of them reports none.
fn link_bps(interfaces: &Interfaces) -> u64 {
    let Interfaces::Named(names) = interfaces else { return 0 };
    let speed = |name: &String| read(&format!("/sys/class/net/{name}/speed")).trim().parse::<u64>().ok();
    names.iter().map(speed).sum::<Option<u64>>().map_or(0, |mbps| mbps * 1_000_000)
}

/// Computes a rate from the interfaces' counters of sent bytes.
#[derive(Debug, Default)]
struct EgressMeter {
    bytes: BTreeMap<String, u64>,
    at: Option<Instant>,
}

impl EgressMeter {
    /// The rate in bit/s since the last call; 0 on the first call. `dev` is the text of
    /// `/proc/net/dev`.
    fn sample_bps(&mut self, dev: &str, interfaces: &Interfaces, now: Instant) -> u64 {
        let line = |line: &str| {
            let (name, numbers) = line.split_once(':')?;
            // The first eight columns count received data.
            Some((name.trim().to_owned(), numbers.split_whitespace().nth(8)?.parse().ok()?))
        };
        let bytes: BTreeMap<String, u64> =
            dev.lines().filter_map(line).filter(|(name, _)| interfaces.includes(name)).collect();
        let before = std::mem::replace(&mut self.bytes, bytes);
        let sent: u64 = self.bytes.iter().map(|(n, now)| now.saturating_sub(*before.get(n).unwrap_or(now))).sum();
        let millis = self.at.replace(now).map_or(0, |then| (now - then).as_millis());
        u64::try_from(u128::from(sent) * 8_000 / millis.max(1)).unwrap_or(u64::MAX)
    }
}

const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n\
        \u{20}   lo: 9 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n  ens5: 1 1 0 0 0 0 0 0 5000 1 0 0 0 0 0 0\n";

    #[test]
    fn egress_is_the_rate_of_sent_bytes_since_the_last_sample() {
        let ens5 = Interfaces::Named(vec!["ens5".to_owned()]);
        let (mut egress_meter, start) = (EgressMeter::default(), Instant::now());
        assert_eq!(egress_meter.sample_bps(DEV, &ens5, start), 0, "unknown before the first sample");
        assert_eq!(egress_meter.sample_bps(&DEV.replace("5000", "6000"), &ens5, start + 2 * SAMPLE_INTERVAL), 4_000);
        assert_eq!(egress_meter.sample_bps("", &ens5, start + 3 * SAMPLE_INTERVAL), 0);
        assert_eq!(
            egress_meter.sample_bps(DEV, &ens5, start + 4 * SAMPLE_INTERVAL),
            0,
            "a new interface has sent nothing yet"
        );
    }

    #[test]
    fn interfaces_of_the_default_route_are_measured_if_there_is_one() {
        let v4 = "Iface Destination Gateway\nens5 0000000A 0\nens5 00000000 0100000A\n";
        let zero = "0".repeat(32);
        let v6 =
            format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n{zero} 00 {zero} 00 {zero} 400 1 0 3 ens6\n");
        let named = |names: &[&str]| Interfaces::Named(names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(interfaces(v4, &v6, false), named(&["ens5", "ens6"]));
        assert_eq!(interfaces("", "", false), Interfaces::AllExceptLoopback);
        assert_eq!(interfaces(v4, &v6, true), named(&["lo"]));
        assert!(!Interfaces::AllExceptLoopback.includes("lo") && Interfaces::AllExceptLoopback.includes("veth0"));
    }
}
