//! Tracks the node's health as seen from outside the engine: events go in, the report for the
//! engine's `/readyz` comes out. Performs no I/O and has no clock.

use std::time::{Duration, Instant};

use headwater_api::control::{CLOCK, LEASE, NodeHealth, REGISTERED};
use headwater_api::documents::NodeRecord;

/// Tracks registration, lease, clock offset and capacity of this node.
#[derive(Debug)]
pub(crate) struct NodeHealthTracker {
    /// Why this incarnation is not registered; `None` if it is.
    not_registered: Option<String>,
    /// Why the lease could not be renewed; `None` if it was.
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
            not_registered: shared.then(|| "this incarnation of the node is not registered yet".to_owned()),
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
    pub(crate) fn on_superseded(&mut self, reason: &str) {
        self.not_registered = Some(format!("another incarnation of this node has taken over: {reason}"));
    }

    /// The lease could not be renewed, for this reason.
    pub(crate) fn on_renewal_failed(&mut self, reason: String) {
        self.lease_failure = Some(reason);
    }

    /// Compares clocks: the registry answered `registry_ms` to a request that lasted from
    /// `before_ms` to `after_ms` by this machine's clock (Unix time). The duration of the request
    /// is not counted as an offset.
    pub(crate) fn on_registry_time(&mut self, before_ms: u64, registry_ms: u64, after_ms: u64) {
        let offset_from = |local_ms: u64| {
            i64::try_from(local_ms).unwrap_or(i64::MAX) - i64::try_from(registry_ms).unwrap_or(i64::MAX)
        };
        self.clock.on_comparison(offset_from(before_ms).max(0) + offset_from(after_ms).min(0));
    }

    /// True if the registry's time should be queried: it was never read, not for a minute, or not
    /// since this machine's clock jumped.
    pub(crate) fn needs_registry_time(&mut self, local_ms: u64, now: Instant) -> bool {
        self.clock.check_due(local_ms, now)
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
    pub(crate) fn report(&self) -> NodeHealth {
        let lease = self
            .lease_failure
            .as_ref()
            .map(|reason| format!("the registry receives no heartbeat from this node: {reason}"));
        let offset_secs = self.clock.ahead_ms.unsigned_abs() / 1_000;
        let direction = if self.clock.ahead_ms > 0 { "ahead of" } else { "behind" };
        let clock = match self.clock.unknown {
            true => Some("the clock of this machine has not yet been compared with the registry's".to_owned()),
            false if offset_secs > MAX_CLOCK_OFFSET.as_secs() => {
                Some(format!("the clock of this machine is {offset_secs} s {direction} the registry's"))
            }
            false => None,
        };
        let checks = [(REGISTERED, self.not_registered.clone()), (LEASE, lease), (CLOCK, clock)];
        NodeHealth {
            checks: checks.into_iter().map(|(name, failure)| (name.to_owned(), failure)).collect(),
            egress_capacity_bps: self.capacity_bps,
            clock_ahead_ms: self.clock.ahead_ms,
            alternative_url: self.alternative_url.clone(),
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
    /// Wall clock and monotonic clock at the last call of `check_due`.
    last_sample: Option<(u64, Instant)>,
    /// Monotonic clock at the last call before the registry's time was read.
    compared_at: Option<Instant>,
    /// True until the query succeeded: a lost query is repeated.
    is_due: bool,
}

impl ClockComparison {
    fn on_comparison(&mut self, ahead_ms: i64) {
        (self.unknown, self.ahead_ms, self.is_due) = (false, ahead_ms, false);
        self.compared_at = self.last_sample.map(|(_, at)| at);
    }

    fn check_due(&mut self, local_ms: u64, now: Instant) -> bool {
        let jumped = self.last_sample.replace((local_ms, now)).is_some_and(|(last_ms, last)| {
            let passed_ms = u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX);
            local_ms.abs_diff(last_ms.saturating_add(passed_ms)) > CLOCK_JUMP_MS
        });
        self.is_due |= jumped || self.compared_at.is_none_or(|at| now - at >= CLOCK_CHECK_INTERVAL);
        self.is_due
    }
}

/// Returns the URL of the least busy other edge whose lease is valid and that is ready and not
/// draining.
pub(crate) fn least_busy_edge(nodes: &[NodeRecord], own_id: &str) -> Option<String> {
    use headwater_api::config::Role;
    let is_candidate = |n: &&NodeRecord| {
        n.node.id != own_id && n.alive && n.heartbeat.ready && !n.heartbeat.draining && n.node.role == Role::Edge
    };
    let busy_permille = |n: &&NodeRecord| {
        let load = &n.heartbeat.load;
        let egress_permille = load.egress_bps.saturating_mul(1_000) / load.egress_capacity_bps.max(1);
        (if load.egress_capacity_bps == 0 { 0 } else { egress_permille }).max(u64::from(load.cpu_permille))
    };
    nodes.iter().filter(is_candidate).min_by_key(busy_permille)?.node.url.clone()
}

/// Segments and tokens carry timestamps that nodes compare; half of the 10 s that HLS allows
/// between two nodes.
const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(5);
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);
const CLOCK_JUMP_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use headwater_api::config::Role;
    use headwater_api::documents::{BootEpoch, Heartbeat, NodeDocument};

    use super::*;

    fn failures(health: &NodeHealthTracker) -> Vec<String> {
        health.report().checks.into_iter().filter_map(|(name, failure)| Some(format!("{name}: {}", failure?))).collect()
    }

    #[test]
    fn every_failure_is_reported_and_cleared() {
        let mut health = NodeHealthTracker::new(true);
        health.on_renewed();
        health.on_registry_time(0, 0, 0);
        assert!(failures(&health).is_empty());
        health.on_renewal_failed("no servers".to_owned());
        assert_eq!(failures(&health), ["lease: the registry receives no heartbeat from this node: no servers"]);
        health.on_renewed();
        let hour_ms = 3_600_000;
        for (local_ms, registry, expected) in [
            (2 * hour_ms, hour_ms, Some("clock: the clock of this machine is 3600 s ahead of the registry's")),
            (hour_ms, 2 * hour_ms, Some("clock: the clock of this machine is 3600 s behind the registry's")),
            (hour_ms, hour_ms + 5_999, None),
        ] {
            health.on_registry_time(local_ms, registry, local_ms);
            assert_eq!(failures(&health).first().map(String::as_str), expected, "{local_ms} {registry}");
        }
        // The request took some time.
        for (before, registry, after, ahead) in
            [(1_000, 1_500, 3_000, 0), (2_000, 1_500, 3_000, 500), (0, 1_500, 1_000, -500)]
        {
            health.on_registry_time(before, registry, after);
            assert_eq!(health.report().clock_ahead_ms, ahead);
        }
        health.on_superseded("epoch 2");
        assert_eq!(failures(&health), ["registered: another incarnation of this node has taken over: epoch 2"]);
    }

    #[test]
    fn node_is_healthy_only_after_a_shared_registry_has_answered() {
        let mut health = NodeHealthTracker::new(true);
        let clock = "clock: the clock of this machine has not yet been compared with the registry's";
        assert_eq!(failures(&health), [clock, "registered: this incarnation of the node is not registered yet"]);
        health.on_renewal_failed("no servers".to_owned());
        assert_eq!(failures(&health).len(), 3);
        health.on_renewed();
        assert_eq!(failures(&health), [clock]);
        health.on_registry_time(0, 0, 0);
        assert!(failures(&health).is_empty());
        assert!(failures(&NodeHealthTracker::new(false)).is_empty(), "an embedded registry is always reachable");
    }

    #[test]
    fn registry_time_is_read_at_first_every_minute_and_after_a_clock_jump() {
        let (mut health, start) = (NodeHealthTracker::new(true), Instant::now());
        assert!(health.needs_registry_time(999_999, start), "and again, since this query was lost");
        let mut query_due = |ms: u64, secs: u64| {
            let is_due = health.needs_registry_time(ms, start + Duration::from_secs(secs));
            if is_due {
                health.on_registry_time(ms, ms, ms);
            }
            is_due
        };
        assert!(query_due(1_000_000, 0));
        assert!(!query_due(1_005_000, 5) && !query_due(1_010_500, 10), "half a second is no jump");
        assert!(query_due(4_615_000, 15), "an hour ahead");
        assert!(query_due(1_020_000, 20), "and back");
        assert!(!query_due(1_079_000, 79));
        assert!(query_due(1_080_000, 80));
    }

    #[test]
    fn least_busy_healthy_edge_is_the_alternative() {
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
                drain_requested: false,
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
