//! Checks of the promises about a cluster, each with its figure. They run one after another on the
//! same cluster, since they break and repair it.

mod database;
mod drain;
mod edge_failure;
mod load_balancing;
mod node_failure;
mod ownership;
mod packet_loss;
mod playback;
mod primary_failover;
mod relay;
mod steps;
mod witnesses;

use std::time::{Duration, Instant};

use anyhow::ensure;
use headwater_tests::delay_proxy::DelayMode;
use tokio::runtime::Handle;

use crate::cluster::{Cluster, ClusterSpec};
use crate::print_line;

/// Selects how much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CheckLevel {
    /// The quick checks: part of every test run.
    Short,
    /// All checks, in minutes.
    Full,
    /// All checks, with ten-minute runs where a promise requires them.
    Long,
}

/// Options from the command line.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) level: CheckLevel,
    pub(crate) only: Vec<String>,
    pub(crate) players: u32,
}

/// Context of a running check.
pub(crate) struct CheckContext<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) options: &'a Options,
}

/// A check. Returns its figure, or an error if the promise does not hold.
type Check = fn(&mut CheckContext<'_>) -> anyhow::Result<String>;

/// Name, lowest level that includes it, and function of each check.
const CHECKS: &[(&str, CheckLevel, Check)] = &[
    ("a node starts", CheckLevel::Short, playback::node_start),
    ("every node plays over every protocol", CheckLevel::Short, playback::every_node),
    ("one owner of two claims", CheckLevel::Short, ownership::concurrent_claims),
    ("origin killed", CheckLevel::Short, node_failure::origin),
    ("edge killed", CheckLevel::Short, edge_failure::killed),
    ("edge frozen", CheckLevel::Short, edge_failure::frozen),
    ("edge vanished", CheckLevel::Full, edge_failure::vanished),
    ("database killed", CheckLevel::Short, database::killed),
    ("database slow and unresponsive", CheckLevel::Full, database::slow),
    ("origin frozen, publisher returns", CheckLevel::Short, witnesses::publisher_returns),
    ("origins cut off from each other", CheckLevel::Short, witnesses::origins_partitioned),
    ("origin drained", CheckLevel::Short, drain::origin),
    ("edge drained", CheckLevel::Full, drain::edge),
    ("origin frozen with its publisher", CheckLevel::Full, ownership::frozen_origin),
    ("origin cut off from the database", CheckLevel::Full, ownership::partitioned_origin),
    ("packets lost at an edge", CheckLevel::Short, packet_loss::edge_link),
    ("half-open relay", CheckLevel::Full, relay::half_open),
    ("unauthenticated relay peers", CheckLevel::Short, relay::unauthenticated_peers),
    ("wrong cluster secret", CheckLevel::Short, relay::wrong_secret),
    ("another node group", CheckLevel::Short, relay::other_group),
    ("players, round-robin per request", CheckLevel::Short, load_balancing::round_robin),
];

/// Additional checks for a registry that is a replica set.
const REPLICA_SET_CHECKS: &[(&str, CheckLevel, Check)] =
    &[("primary killed", CheckLevel::Short, primary_failover::killed)];

/// Builds a cluster, runs the checks and prints a line for each. Returns true if
/// all of them passed.
///
/// # Errors
/// If the cluster cannot be built, or no check matches the options.
pub(crate) fn run(spec: &ClusterSpec, options: &Options, runtime: &Handle) -> anyhow::Result<bool> {
    let started = Instant::now();
    let mut cluster = Cluster::build(spec, runtime, |what| print_line(&format!("==> {what}")))?;
    print_result(
        "cluster started",
        started.elapsed(),
        &Ok(format!("{} nodes ready", cluster.nodes.len() + cluster.registry.members().len())),
    );
    let (mut all_passed, mut count) = (true, 0);
    let replica_set_checks = if cluster.registry.replica_set().is_some() { REPLICA_SET_CHECKS } else { &[] };
    for (name, level, check) in CHECKS.iter().chain(replica_set_checks) {
        let selected = options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()));
        if *level > options.level || !selected {
            continue;
        }
        let started = Instant::now();
        let result = check(&mut CheckContext { cluster: &mut cluster, options }).and_then(|figure| {
            check_logs(&cluster)?;
            Ok(figure)
        });
        all_passed &= result.is_ok();
        count += 1;
        print_result(name, started.elapsed(), &result);
        // Restore the cluster for the next check.
        if let Err(e) = restore(&mut cluster) {
            print_result("restore", started.elapsed(), &Err(e));
            return Ok(false);
        }
    }
    ensure!(count > 0, "no check has such a name at this level");
    print_line(&format!(
        "==> {} in {} s",
        if all_passed { "all checks passed" } else { "some checks failed" },
        started.elapsed().as_secs()
    ));
    Ok(all_passed)
}

fn print_result(name: &str, took: Duration, result: &anyhow::Result<String>) {
    let took = took.as_secs_f64();
    match result {
        Ok(figure) => print_line(&format!("ok    {name:<38} {took:>5.1} s  {figure}")),
        Err(e) => print_line(&format!("FAIL  {name:<38} {took:>5.1} s  {e:#}")),
    }
}

/// Fails if a node has panicked or logged a secret.
fn check_logs(cluster: &Cluster) -> anyhow::Result<()> {
    for node in cluster.nodes.iter().chain(cluster.registry.members()) {
        let log = std::fs::read_to_string(node.log_path())?;
        for forbidden in ["panicked at", "the relay secret", cluster.registry.secret(), cluster.password.as_str()] {
            let lines: Vec<_> = log.lines().collect();
            if let Some(at) = lines.iter().position(|l| l.contains(forbidden)) {
                let around = lines[at.saturating_sub(6)..(at + 3).min(lines.len())].join("\n      ");
                anyhow::bail!("in the log of {}:\n      {around}", node.name);
            }
        }
    }
    Ok(())
}

fn restore(cluster: &mut Cluster) -> anyhow::Result<()> {
    if let Some(proxy) = cluster.registry.proxy() {
        proxy.set_mode(DelayMode::Delayed(Duration::ZERO));
    }
    for node in cluster.nodes.iter().chain(cluster.registry.members()) {
        node.host().restore_network()?;
        node.signal(nix::sys::signal::Signal::SIGCONT);
    }
    if let Some(set) = cluster.registry.replica_set_mut() {
        set.start_all()?;
    }
    for at in 0..cluster.nodes.len() {
        if !cluster.nodes[at].is_running() {
            cluster.launch_instance(at)?;
        }
    }
    cluster.wait_ready()
}
