//! What must hold of a cluster, each check with its figure. One after another on one cloud, since they break it and mend it.

mod crowd;
mod database;
mod death;
mod drain;
mod fence;
mod loss;
mod play;
mod primary;
mod relay;
mod watch;

use std::time::{Duration, Instant};

use anyhow::ensure;
use headwater_tests::delay::Manner;
use tokio::runtime::Handle;

use crate::say;
use crate::scene::{Scene, Wish};

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// What is quick: part of every test run.
    Short,
    /// Everything, in minutes.
    Full,
    /// With ten minutes where the promise says so.
    Long,
}

/// What the command line says of checks.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) extent: Extent,
    pub(crate) only: Vec<String>,
    pub(crate) players: u32,
}

/// What a check may use.
pub(crate) struct Stage<'a> {
    pub(crate) scene: &'a mut Scene,
    pub(crate) options: &'a Options,
}

/// A check: says its figure, or why it does not hold.
type Check = fn(&mut Stage<'_>) -> anyhow::Result<String>;

/// Name, the smallest extent it belongs to, and what it does.
const CHECKS: &[(&str, Extent, Check)] = &[
    ("a node starts", Extent::Short, play::start),
    ("every node plays over every protocol", Extent::Short, play::everywhere),
    ("one owner of two claims", Extent::Short, fence::two_claims),
    ("origin killed", Extent::Short, death::origin),
    ("edge killed", Extent::Short, death::edge),
    ("database killed", Extent::Short, database::killed),
    ("database late and silent", Extent::Full, database::slow),
    ("origin drained", Extent::Short, drain::origin),
    ("edge drained", Extent::Full, drain::edge),
    ("origin frozen beyond its lease", Extent::Full, fence::frozen),
    ("origin cut off from the database", Extent::Full, fence::split),
    ("packets lost at an edge", Extent::Short, loss::packets),
    ("half-open relay", Extent::Full, relay::half_open),
    ("strangers at the relay", Extent::Short, relay::strangers),
    ("wrong cluster secret", Extent::Short, relay::wrong_secret),
    ("another node group", Extent::Short, relay::other_group),
    ("crowd, round-robin per request", Extent::Short, crowd::round_robin),
];

/// The same, where the registry is a replica set.
const CHECKS_OF_A_SET: &[(&str, Extent, Check)] = &[("primary killed", Extent::Short, primary::killed)];

/// Builds a cloud, runs the checks, prints a line for each; true if all hold.
///
/// # Errors
/// If there is no cloud to check.
pub(crate) fn run(wish: &Wish, options: &Options, runtime: &Handle) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut scene = Scene::build(wish, runtime, |what| say(&format!("==> {what}")))?;
    print(
        "cluster assembled",
        begun.elapsed(),
        &Ok(format!("{} nodes ready", scene.nodes.len() + scene.registry.members().len())),
    );
    let (mut good, mut done) = (true, 0);
    let of_a_set = if scene.registry.set().is_some() { CHECKS_OF_A_SET } else { &[] };
    for (name, extent, check) in CHECKS.iter().chain(of_a_set) {
        let wanted = options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()));
        if *extent > options.extent || !wanted {
            continue;
        }
        let begun = Instant::now();
        let result = check(&mut Stage { scene: &mut scene, options }).and_then(|figure| {
            unharmed(&scene)?;
            Ok(figure)
        });
        good &= result.is_ok();
        done += 1;
        print(name, begun.elapsed(), &result);
        // The next check begins with everything in its place.
        if let Err(e) = mend(&mut scene) {
            print("mended", begun.elapsed(), &Err(e));
            return Ok(false);
        }
    }
    ensure!(done > 0, "no check that can be made here has such a name");
    say(&format!("==> {} in {} s", if good { "all hold" } else { "not all hold" }, begun.elapsed().as_secs()));
    Ok(good)
}

fn print(name: &str, took: Duration, result: &anyhow::Result<String>) {
    let took = took.as_secs_f64();
    match result {
        Ok(figure) => say(&format!("ok    {name:<38} {took:>5.1} s  {figure}")),
        Err(e) => say(&format!("FAIL  {name:<38} {took:>5.1} s  {e:#}")),
    }
}

/// No node has panicked, and none has written a secret.
fn unharmed(scene: &Scene) -> anyhow::Result<()> {
    for node in scene.nodes.iter().chain(scene.registry.members()) {
        let log = std::fs::read_to_string(node.log())?;
        for forbidden in ["panicked at", "the relay secret", scene.registry.secret(), scene.password.as_str()] {
            let lines: Vec<_> = log.lines().collect();
            if let Some(at) = lines.iter().position(|l| l.contains(forbidden)) {
                let around = lines[at.saturating_sub(6)..(at + 3).min(lines.len())].join("\n      ");
                anyhow::bail!("in the log of {}:\n      {around}", node.name);
            }
        }
    }
    Ok(())
}

fn mend(scene: &mut Scene) -> anyhow::Result<()> {
    if let Some(line) = scene.registry.line() {
        line.set(Manner::Late(Duration::ZERO));
    }
    for node in scene.nodes.iter().chain(scene.registry.members()) {
        node.host().heal()?;
        node.signal(nix::sys::signal::Signal::SIGCONT);
    }
    if let Some(set) = scene.registry.set_mut() {
        set.start_all()?;
    }
    for at in 0..scene.nodes.len() {
        if !scene.nodes[at].is_running() {
            scene.launch(at)?;
        }
    }
    scene.wait_ready()
}
