//! Tracks the node's health as seen from outside the engine: events go in, the report for the
//! engine's `/readyz` comes out. Performs no I/O and has no clock.

use std::time::{Duration, Instant};

use headwater_api::node::NodeRecord;
use headwater_api::standing::{CLOCK, LEASE, REGISTERED, Standing};

/// Tracks registration, lease, clock offset and capacity of this node.
#[derive(Debug)]
pub(crate) struct NodeHealthTracker {
    /// Why this incarnation is not registered, if it is not; and why the lease could not be
    /// renewed.
    not_registered: Option<String>,
    lease_failure: Option<String>,
    clock: ClockComparison,
    capacity_bps: u64,
    alternative_url: Option<String>,
}

impl NodeHealthTracker {
    /// The initial state of a node. With a `shared` registry it is unhealthy until the registry has
    /// answered; with an embedded one lease and clock always pass.
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            not_registered: shared.then(|| "the registry has not yet heard from this life of the node".to_owned()),
            lease_failure: None,
            clock: ClockComparison { unknown: shared, ..ClockComparison::default() },
            capacity_bps: 0,
            alternative_url: None,
        }
    }

    /// The node is registered and its lease was renewed.
    pub(crate) fn on_renewed(&mut self) {
        (self.not_registered, self.lease_failure) = (None, None);
    }

    /// Another incarnation of the node has registered.
    pub(crate) fn on_superseded(&mut self, why: &str) {
        self.not_registered = Some(format!("another life of this node has taken over: {why}"));
    }

    /// The lease could not be renewed, for this reason.
    pub(crate) fn on_renewal_failed(&mut self, why: String) {
        self.lease_failure = Some(why);
    }

    /// Compares clocks: the registry answered `registry_ms` to a request that lasted from
    /// `before_ms` to `after_ms` by this machine's clock (Unix time). The duration of the request
    /// is not counted as an offset.
    pub(crate) fn on_registry_time(&mut self, before_ms: u64, theirs_ms: u64, after_ms: u64) {
        let less = |ours: u64| i64::try_from(ours).unwrap_or(i64::MAX) - i64::try_from(theirs_ms).unwrap_or(i64::MAX);
        self.clock.on_comparison(less(before_ms).max(0) + less(after_ms).min(0));
    }

    /// True if the registry's time should be queried: it was never read, not for a minute, or not
    /// since this machine's clock jumped.
    pub(crate) fn needs_registry_time(&mut self, ours_ms: u64, now: Instant) -> bool {
        self.clock.check_due(ours_ms, now)
    }

    /// Egress capacity in bits per second, as the cloud provider states it.
    pub(crate) fn on_capacity(&mut self, bps: u64) {
        self.capacity_bps = bps;
    }

    /// URL of another node with free capacity, if there is one.
    pub(crate) fn on_alternative(&mut self, url: Option<String>) {
        self.alternative_url = url;
    }

    /// True if every check passes.
    pub(crate) fn is_healthy(&self) -> bool {
        self.report().checks.values().all(Option::is_none)
    }

    /// Returns the report for the engine.
    pub(crate) fn report(&self) -> Standing {
        let lease = self.lease_failure.as_ref().map(|why| format!("the registry does not hear from this node: {why}"));
        let off_secs = self.clock.ahead_ms.unsigned_abs() / 1_000;
        let word = if self.clock.ahead_ms > 0 { "ahead of" } else { "behind" };
        let clock = match self.clock.unknown {
            true => Some("the clock of this machine has not yet been compared with the registry's".to_owned()),
            false if off_secs > MAX_CLOCK_OFFSET.as_secs() => {
                Some(format!("the clock of this machine is {off_secs} s {word} the registry's"))
            }
            false => None,
        };
        let checks = [(REGISTERED, self.not_registered.clone()), (LEASE, lease), (CLOCK, clock)];
        Standing {
            checks: checks.into_iter().map(|(name, wrong)| (name.to_owned(), wrong)).collect(),
            egress_capacity_bps: self.capacity_bps,
            clock_ahead_ms: self.clock.ahead_ms,
            elsewhere: self.alternative_url.clone(),
        }
    }
}

/// Compares this machine's clock with the registry's.
#[derive(Debug, Default)]
struct ClockComparison {
    /// True until the registry's time was read once.
    unknown: bool,
    /// Local time minus registry time.
    ahead_ms: i64,
    /// Wall clock and monotonic clock at the last call, and at the last call before the registry's
    /// time was read.
    last_sample: Option<(u64, Instant)>,
    compared_at: Option<Instant>,
    /// True until the query succeeded: a lost query is repeated.
    is_due: bool,
}

impl ClockComparison {
    fn on_comparison(&mut self, ahead_ms: i64) {
        (self.unknown, self.ahead_ms, self.is_due) = (false, ahead_ms, false);
        self.compared_at = self.last_sample.map(|(_, at)| at);
    }

    fn check_due(&mut self, ours_ms: u64, now: Instant) -> bool {
        let jumped = self.last_sample.replace((ours_ms, now)).is_some_and(|(then_ms, then)| {
            let passed_ms = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
            ours_ms.abs_diff(then_ms.saturating_add(passed_ms)) > CLOCK_JUMP_MS
        });
        self.is_due |= jumped || self.compared_at.is_none_or(|at| now - at >= CLOCK_CHECK_INTERVAL);
        self.is_due
    }
}

/// Returns the URL of the least busy other edge that is alive, ready and not draining.
pub(crate) fn least_busy_edge(nodes: &[NodeRecord], us: &str) -> Option<String> {
    use headwater_api::config::Role;
    let fit = |n: &&NodeRecord| {
        n.node.id != us && n.alive && n.heartbeat.ready && !n.heartbeat.draining && n.node.role == Role::Edge
    };
    let busy = |n: &&NodeRecord| {
        let load = &n.heartbeat.load;
        let egress_permille = load.egress_bps.saturating_mul(1_000) / load.egress_capacity_bps.max(1);
        (if load.egress_capacity_bps == 0 { 0 } else { egress_permille }).max(u64::from(load.cpu_permille))
    };
    nodes.iter().filter(fit).min_by_key(busy)?.node.url.clone()
}

/// Segments and tokens carry timestamps that nodes compare; half of the 10 s that HLS allows
/// between two nodes.
const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(5);
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);
const CLOCK_JUMP_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use headwater_api::config::Role;
    use headwater_api::node::{BootEpoch, Heartbeat, NodeDocument};

    use super::*;

    fn wrong(outlook: &NodeHealthTracker) -> Vec<String> {
        outlook.report().checks.into_iter().filter_map(|(name, wrong)| Some(format!("{name}: {}", wrong?))).collect()
    }

    #[test]
    fn every_fault_of_the_outside_is_told_and_taken_back() {
        let mut outlook = NodeHealthTracker::new(true);
        outlook.on_renewed();
        outlook.on_registry_time(0, 0, 0);
        assert!(wrong(&outlook).is_empty());
        outlook.on_renewal_failed("no servers".to_owned());
        assert_eq!(wrong(&outlook), ["lease: the registry does not hear from this node: no servers"]);
        outlook.on_renewed();
        let hour_ms = 3_600_000;
        for (ours, theirs, expected) in [
            (2 * hour_ms, hour_ms, Some("clock: the clock of this machine is 3600 s ahead of the registry's")),
            (hour_ms, 2 * hour_ms, Some("clock: the clock of this machine is 3600 s behind the registry's")),
            (hour_ms, hour_ms + 5_999, None),
        ] {
            outlook.on_registry_time(ours, theirs, ours);
            assert_eq!(wrong(&outlook).first().map(String::as_str), expected, "{ours} {theirs}");
        }
        // The request took some time.
        for (before, theirs, after, ahead) in
            [(1_000, 1_500, 3_000, 0), (2_000, 1_500, 3_000, 500), (0, 1_500, 1_000, -500)]
        {
            outlook.on_registry_time(before, theirs, after);
            assert_eq!(outlook.report().clock_ahead_ms, ahead);
        }
        outlook.on_superseded("epoch 2");
        assert_eq!(wrong(&outlook), ["registered: another life of this node has taken over: epoch 2"]);
    }

    #[test]
    fn a_node_is_well_only_when_a_shared_registry_has_answered_once_and_told_its_time() {
        let mut outlook = NodeHealthTracker::new(true);
        let clock = "clock: the clock of this machine has not yet been compared with the registry's";
        assert_eq!(wrong(&outlook), [clock, "registered: the registry has not yet heard from this life of the node"]);
        outlook.on_renewal_failed("no servers".to_owned());
        assert_eq!(wrong(&outlook).len(), 3);
        outlook.on_renewed();
        assert_eq!(wrong(&outlook), [clock]);
        outlook.on_registry_time(0, 0, 0);
        assert!(wrong(&outlook).is_empty());
        assert!(wrong(&NodeHealthTracker::new(false)).is_empty(), "a registry of its own is never away");
    }

    #[test]
    fn the_registry_is_asked_for_its_time_at_first_once_a_minute_and_when_our_clock_jumps() {
        let (mut outlook, start) = (NodeHealthTracker::new(true), Instant::now());
        assert!(outlook.needs_registry_time(999_999, start), "and again, since this question was lost");
        let mut ask = |ms: u64, secs: u64| {
            let asks = outlook.needs_registry_time(ms, start + Duration::from_secs(secs));
            if asks {
                outlook.on_registry_time(ms, ms, ms);
            }
            asks
        };
        assert!(ask(1_000_000, 0));
        assert!(!ask(1_005_000, 5) && !ask(1_010_500, 10), "half a second is no jump");
        assert!(ask(4_615_000, 15), "an hour ahead");
        assert!(ask(1_020_000, 20), "and back");
        assert!(!ask(1_079_000, 79));
        assert!(ask(1_080_000, 80));
    }

    #[test]
    fn the_least_busy_edge_that_is_well_takes_the_viewers() {
        let node = |id: &str, change: fn(&mut NodeRecord)| {
            let mut record = NodeRecord {
                node: NodeDocument {
                    id: id.to_owned(),
                    role: Role::Edge,
                    addresses: Vec::new(),
                    relay: Vec::new(),
                    url: Some(format!("http://{id}")),
                    group: String::new(),
                    zone: String::new(),
                    instance_type: String::new(),
                    image: String::new(),
                    version: String::new(),
                    started_at_ms: 0,
                },
                boot_epoch: BootEpoch(1),
                heartbeat: Heartbeat { ready: true, ..Heartbeat::default() },
                age_ms: 0,
                silent_ms: 0,
                alive: true,
                drain_asked: false,
            };
            record.heartbeat.load.cpu_permille = 500;
            record.heartbeat.load.egress_capacity_bps = 1_000;
            change(&mut record);
            record
        };
        let nodes = [
            node("us", |n| n.heartbeat.load.cpu_permille = 0),
            node("dead", |n| (n.alive, n.heartbeat.load.cpu_permille) = (false, 0)),
            node("draining", |n| (n.heartbeat.draining, n.heartbeat.load.cpu_permille) = (true, 0)),
            node("unwell", |n| (n.heartbeat.ready, n.heartbeat.load.cpu_permille) = (false, 0)),
            node("origin", |n| (n.node.role, n.heartbeat.load.cpu_permille) = (Role::Origin, 0)),
            node("sends", |n| (n.heartbeat.load.egress_bps, n.heartbeat.load.cpu_permille) = (900, 0)),
            node("busy", |_| {}),
            node("calm", |n| n.heartbeat.load.cpu_permille = 400),
        ];
        assert_eq!(least_busy_edge(&nodes, "us").as_deref(), Some("http://calm"));
        assert_eq!(least_busy_edge(&nodes[..5], "us"), None);
    }
}
