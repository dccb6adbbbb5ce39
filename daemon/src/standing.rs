//! How the node stands with its registry, as a value: what happened goes in, what `/readyz` repeats comes out. Waits for
//! nothing and has no clock.

use std::time::{Duration, Instant};

use headwater_api::node::NodeRecord;
use headwater_api::standing::{CLOCK, LEASE, REGISTERED, Standing};

/// What is known of the outside.
#[derive(Debug)]
pub(crate) struct Outlook {
    /// Why the registry does not have this life of the node, if it does not. What it does not hear meanwhile is `why_not`.
    missing: Option<String>,
    why_not: Option<String>,
    clock: Clock,
    capacity_bps: u64,
    elsewhere: Option<String>,
}

impl Outlook {
    /// Of a node whose registry has not yet answered, if it is `shared`; one of its own has nothing to say of lease and clock.
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            missing: shared.then(|| "the registry has not yet heard from this life of the node".to_owned()),
            why_not: None,
            clock: Clock { unknown: shared, ..Clock::default() },
            capacity_bps: 0,
            elsewhere: None,
        }
    }

    /// The entry is there and the lease runs.
    pub(crate) fn on_renewed(&mut self) {
        (self.missing, self.why_not) = (None, None);
    }

    /// Another life of the node has its entry.
    pub(crate) fn on_superseded(&mut self, why: &str) {
        self.missing = Some(format!("another life of this node has taken over: {why}"));
    }

    /// The lease could not be renewed, for this reason.
    pub(crate) fn on_refused(&mut self, why: String) {
        self.why_not = Some(why);
    }

    /// The registry's clock showed `theirs_ms` at some time while this machine's went from `before_ms` to `after_ms`: Unix
    /// time. What the call took is no error of the clock.
    pub(crate) fn on_clock(&mut self, before_ms: u64, theirs_ms: u64, after_ms: u64) {
        let less = |ours: u64| i64::try_from(ours).unwrap_or(i64::MAX) - i64::try_from(theirs_ms).unwrap_or(i64::MAX);
        self.clock.on_answer(less(before_ms).max(0) + less(after_ms).min(0));
    }

    /// True if the registry should be asked for its time: it never told it, not for a minute, or not since this machine's clock
    /// has jumped.
    pub(crate) fn wants_clock(&mut self, ours_ms: u64, now: Instant) -> bool {
        self.clock.is_due(ours_ms, now)
    }

    /// What the machine can send, as its provider says.
    pub(crate) fn on_capacity(&mut self, bps: u64) {
        self.capacity_bps = bps;
    }

    /// Another node that has room, or none.
    pub(crate) fn on_elsewhere(&mut self, url: Option<String>) {
        self.elsewhere = url;
    }

    /// True if there is nothing to say against the node.
    pub(crate) fn is_well(&self) -> bool {
        self.standing().checks.values().all(Option::is_none)
    }

    /// For the engine.
    pub(crate) fn standing(&self) -> Standing {
        let lease = self.why_not.as_ref().map(|why| format!("the registry does not hear from this node: {why}"));
        let off_secs = self.clock.ahead_ms.unsigned_abs() / 1_000;
        let word = if self.clock.ahead_ms > 0 { "ahead of" } else { "behind" };
        let clock = match self.clock.unknown {
            true => Some("the clock of this machine has not yet been compared with the registry's".to_owned()),
            false if off_secs > MAX_OFF.as_secs() => {
                Some(format!("the clock of this machine is {off_secs} s {word} the registry's"))
            }
            false => None,
        };
        let checks = [(REGISTERED, self.missing.clone()), (LEASE, lease), (CLOCK, clock)];
        Standing {
            checks: checks.into_iter().map(|(name, wrong)| (name.to_owned(), wrong)).collect(),
            egress_capacity_bps: self.capacity_bps,
            clock_ahead_ms: self.clock.ahead_ms,
            elsewhere: self.elsewhere.clone(),
        }
    }
}

/// This machine's clock against the registry's.
#[derive(Debug, Default)]
struct Clock {
    /// True until the registry has told its time.
    unknown: bool,
    /// Ours less theirs.
    ahead_ms: i64,
    /// Our clock and a clock that never jumps, at the last call; and the last call before the registry told its time.
    before: Option<(u64, Instant)>,
    answered: Option<Instant>,
    /// True until the registry has answered: a question that gets lost is asked again.
    due: bool,
}

impl Clock {
    fn on_answer(&mut self, ahead_ms: i64) {
        (self.unknown, self.ahead_ms, self.due) = (false, ahead_ms, false);
        self.answered = self.before.map(|(_, at)| at);
    }

    fn is_due(&mut self, ours_ms: u64, now: Instant) -> bool {
        let jumped = self.before.replace((ours_ms, now)).is_some_and(|(then_ms, then)| {
            let passed_ms = u64::try_from((now - then).as_millis()).unwrap_or(u64::MAX);
            ours_ms.abs_diff(then_ms.saturating_add(passed_ms)) > JUMP_MS
        });
        self.due |= jumped || self.answered.is_none_or(|at| now - at >= ASK_CLOCK);
        self.due
    }
}

/// The URL of a node that viewers can go to in place of `us`: alive, ready, not draining, no origin, and the least busy.
pub(crate) fn elsewhere(nodes: &[NodeRecord], us: &str) -> Option<String> {
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

/// Segments and tokens carry times that nodes compare; half of what HLS allows between two nodes (10 s).
const MAX_OFF: Duration = Duration::from_secs(5);
const ASK_CLOCK: Duration = Duration::from_secs(60);
const JUMP_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use headwater_api::config::Role;
    use headwater_api::node::{BootEpoch, Heartbeat, NodeDocument};

    use super::*;

    fn wrong(outlook: &Outlook) -> Vec<String> {
        outlook.standing().checks.into_iter().filter_map(|(name, wrong)| Some(format!("{name}: {}", wrong?))).collect()
    }

    #[test]
    fn every_fault_of_the_outside_is_told_and_taken_back() {
        let mut outlook = Outlook::new(true);
        outlook.on_renewed();
        outlook.on_clock(0, 0, 0);
        assert!(wrong(&outlook).is_empty());
        outlook.on_refused("no servers".to_owned());
        assert_eq!(wrong(&outlook), ["lease: the registry does not hear from this node: no servers"]);
        outlook.on_renewed();
        let hour_ms = 3_600_000;
        for (ours, theirs, expected) in [
            (2 * hour_ms, hour_ms, Some("clock: the clock of this machine is 3600 s ahead of the registry's")),
            (hour_ms, 2 * hour_ms, Some("clock: the clock of this machine is 3600 s behind the registry's")),
            (hour_ms, hour_ms + 5_999, None),
        ] {
            outlook.on_clock(ours, theirs, ours);
            assert_eq!(wrong(&outlook).first().map(String::as_str), expected, "{ours} {theirs}");
        }
        // The answer took a while.
        for (before, theirs, after, ahead) in
            [(1_000, 1_500, 3_000, 0), (2_000, 1_500, 3_000, 500), (0, 1_500, 1_000, -500)]
        {
            outlook.on_clock(before, theirs, after);
            assert_eq!(outlook.standing().clock_ahead_ms, ahead);
        }
        outlook.on_superseded("epoch 2");
        assert_eq!(wrong(&outlook), ["registered: another life of this node has taken over: epoch 2"]);
    }

    #[test]
    fn a_node_is_well_only_when_a_shared_registry_has_answered_once_and_told_its_time() {
        let mut outlook = Outlook::new(true);
        let clock = "clock: the clock of this machine has not yet been compared with the registry's";
        assert_eq!(wrong(&outlook), [clock, "registered: the registry has not yet heard from this life of the node"]);
        outlook.on_refused("no servers".to_owned());
        assert_eq!(wrong(&outlook).len(), 3);
        outlook.on_renewed();
        assert_eq!(wrong(&outlook), [clock]);
        outlook.on_clock(0, 0, 0);
        assert!(wrong(&outlook).is_empty());
        assert!(wrong(&Outlook::new(false)).is_empty(), "a registry of its own is never away");
    }

    #[test]
    fn the_registry_is_asked_for_its_time_at_first_once_a_minute_and_when_our_clock_jumps() {
        let (mut outlook, start) = (Outlook::new(true), Instant::now());
        assert!(outlook.wants_clock(999_999, start), "and again, since this question was lost");
        let mut ask = |ms: u64, secs: u64| {
            let asks = outlook.wants_clock(ms, start + Duration::from_secs(secs));
            if asks {
                outlook.on_clock(ms, ms, ms);
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
        assert_eq!(elsewhere(&nodes, "us").as_deref(), Some("http://calm"));
        assert_eq!(elsewhere(&nodes[..5], "us"), None);
    }
}
