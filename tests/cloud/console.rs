//! The interactive console: prints what to open and to try, and executes
//! commands from standard input.

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use headwater_tests::delay_proxy::DelayMode;
use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::node::Role;
use crate::print_line;
use crate::viewers::Audience;

/// Runs until `quit` or until `shutdown_rx` becomes true.
pub(crate) fn run(mut cluster: Cluster, shutdown_rx: &watch::Receiver<bool>) -> anyhow::Result<()> {
    print_welcome(&cluster);
    let (line_tx, line_rx) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line_tx.send(line).is_err() {
                return;
            }
        }
    });
    let mut audience = None;
    while !*shutdown_rx.borrow() {
        match line_rx.recv_timeout(POLL_INTERVAL) {
            Ok(line) if line.trim() == "quit" => break,
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => match execute(&mut cluster, &mut audience, &line) {
                Ok(result) => print_line(&result),
                Err(e) => print_line(&format!("{e:#}")),
            },
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            // Standard input is closed: only a signal ends the program.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => std::thread::park_timeout(POLL_INTERVAL),
        }
    }
    print_line("==> shutting down");
    drop(cluster);
    Ok(())
}

fn print_welcome(cluster: &Cluster) {
    let publish = cluster.publish_url("live/demo");
    let (server, stream_key) = publish.rsplit_once('/').unwrap_or_default();
    print_line("\n  The cluster is up.\n");
    print_line(&format!("  Publish    OBS: server {server}, stream key {stream_key}"));
    print_line(
        "             ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine=frequency=330 \
         -pix_fmt yuv420p \\",
    );
    print_line(&format!(
        "               -c:v libx264 -preset veryfast -tune zerolatency -g 30 -c:a aac -f flv '{publish}'"
    ));
    print_line(&format!("  Player     {}", cluster.page_url("/live/play.html?id=demo")));
    print_line(&format!(
        "  Dashboard  {}  (log in at {} as admin with password {} to see addresses and remove nodes)\n",
        cluster.page_url("/"),
        cluster.login_url(),
        cluster.password
    ));
    print_line("  The load balancers send each connection to the next node. The nodes, reachable from this machine:\n");
    print_nodes(cluster);
    print_line(&format!("\n  Logs       {}/NODE/log\n", cluster.folder().display()));
    print_line(HELP);
}

fn print_nodes(cluster: &Cluster) {
    match cluster.registry.replica_set() {
        None => cluster
            .registry
            .addresses()
            .iter()
            .for_each(|a| print_line(&format!("    {:<10} {:<8} {a}", "registry", ""))),
        Some(set) => {
            for (at, member) in set.members().iter().enumerate() {
                let (role, address) = (member.role.tag_value(), member.host().address());
                let state = set.member_state(at);
                print_line(&format!("    {:<10} {role:<8} {address:<28} {:<21} {state}", member.name, member.id()));
            }
        }
    }
    for node in &cluster.nodes {
        let state = if node.is_ready() { "ready" } else { "not ready" };
        print_line(&format!(
            "    {:<10} {:<8} http://{:<21} {:<21} {state}",
            node.name,
            node.role.tag_value(),
            node.http(),
            node.id()
        ));
    }
}

/// Executes a command and returns its result as a sentence.
fn execute(cluster: &mut Cluster, audience: &mut Option<Audience>, line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let group_node = |cluster: &Cluster, name: &str| {
        cluster.find_index(name).with_context(|| format!("no origin or edge named {name}"))
    };
    if let (["kill" | "freeze" | "drain" | "cut" | "lose", _, ..], Some(audience)) = (words.as_slice(), &*audience) {
        audience.reset_pauses()?;
    }
    match words.as_slice() {
        ["help"] => Ok(HELP.to_owned()),
        ["nodes"] => {
            print_nodes(cluster);
            Ok(format!(
                "    {} edges and {} origins are healthy",
                cluster.http_balancer.healthy_count(),
                cluster.rtmp_balancer.healthy_count()
            ))
        }
        ["kill", "database"] => {
            cluster.registry.kill().map(|()| "the database is killed; `start database` starts it again".to_owned())
        }
        ["start", "database"] => cluster.registry.restart().map(|()| "the database is running again".to_owned()),
        ["slow", "database", ms] => {
            let Some(proxy) = cluster.registry.proxy() else {
                bail!("registry nodes have no proxy that could delay them; try `freeze registry-1`")
            };
            proxy.set_mode(DelayMode::Delayed(Duration::from_millis(ms.parse().context("milliseconds")?)));
            Ok(format!("the database answers with {ms} ms delay"))
        }
        ["viewers", arguments @ ..] => execute_viewers(cluster, audience, arguments),
        ["register", name] => {
            cluster.register(&cluster.nodes[group_node(cluster, name)?]);
            Ok(format!("{name} is registered at its load balancer"))
        }
        ["deregister", name] => {
            cluster.deregister(&cluster.nodes[group_node(cluster, name)?]);
            Ok(format!("{name} is deregistered from its load balancer; its connections stay"))
        }
        ["kill", name] => {
            let node = cluster.node(name)?;
            node.kill();
            Ok(match node.role {
                Role::Registry => format!("{name} is killed; `start {name}` starts it again with its data"),
                _ => format!("{name} is killed; `start {name}` launches a new instance in its place"),
            })
        }
        ["start", name] => match (cluster.find_index(name), cluster.registry.replica_set_mut()) {
            (Some(at), _) => {
                cluster.relaunch(at)?;
                Ok(format!("{name} is ready as {}", cluster.nodes[at].id()))
            }
            (None, Some(set)) => {
                let at = set.members().iter().position(|member| member.name == *name);
                let at = at.with_context(|| format!("no node named {name}"))?;
                set.start_member(at)?;
                Ok(format!("{name} is {}", set.wait_member(at)?))
            }
            (None, None) => bail!("no node named {name}"),
        },
        ["freeze", name] => {
            cluster.node(name)?.signal(Signal::SIGSTOP);
            Ok(format!("{name} is frozen; `thaw {name}` resumes it"))
        }
        ["thaw", name] => {
            cluster.node(name)?.signal(Signal::SIGCONT);
            Ok(format!("{name} is resumed"))
        }
        ["drain", name] => {
            let at = group_node(cluster, name)?;
            cluster.groups.terminate(cluster.nodes[at].id())?;
            Ok(format!(
                "Auto Scaling terminates {name}: it drains; `start {name}` launches a new instance in its place"
            ))
        }
        ["scale-in", group @ ("origins" | "edges")] => Ok(match cluster.groups.scale_in(group) {
            Some(id) => format!("Auto Scaling terminates {id}: it drains"),
            None => "every instance of the group is protected: none is terminated".to_owned(),
        }),
        ["cut" | "lose" | "heal", ..] => execute_network(cluster, &words),
        _ => bail!("unknown command: {line}\n{HELP}"),
    }
}

/// Changes the network of a host.
fn execute_network(cluster: &mut Cluster, words: &[&str]) -> anyhow::Result<String> {
    match words {
        ["cut", name, "database"] => {
            let addresses = cluster.registry.addresses();
            let host = cluster.node(name)?.host();
            addresses.into_iter().try_for_each(|address| host.partition_from(address))?;
            Ok(format!("{name} and the database are partitioned; `heal {name}` reconnects them"))
        }
        ["cut", name, other] => {
            let other_address = cluster.node(other)?.host().address();
            cluster.node(name)?.host().partition_from(other_address)?;
            Ok(format!("{name} and {other} are partitioned; `heal {name}` reconnects them"))
        }
        ["lose", name, percent] => {
            cluster.node(name)?.host().set_packet_loss(percent.parse().context("percent")?)?;
            Ok(format!("{percent} % of the packets to and from {name} are dropped; `heal {name}` ends this"))
        }
        ["heal", name] => {
            cluster.node(name)?.host().restore_network()?;
            Ok(format!("the network of {name} is restored"))
        }
        _ => bail!("unknown command: {}\n{HELP}", words.join(" ")),
    }
}

/// Starts viewers, or says how they are.
fn execute_viewers(cluster: &Cluster, audience: &mut Option<Audience>, arguments: &[&str]) -> anyhow::Result<String> {
    let [stream, count] = arguments else {
        let pauses = audience.as_ref().context("start some with `viewers STREAM COUNT`")?.pauses()?;
        return Ok(format!(
            "{} of {} viewers play, {} WebRTC sessions so far; since the last fault: {} paused for less than 3 s, \
             the longest for {:.2} s",
            pauses.playing,
            pauses.longest.len(),
            pauses.sessions,
            pauses.count_below(Duration::from_secs(3)),
            pauses.max().as_secs_f64()
        ));
    };
    let count = count.parse().context("a number of viewers")?;
    // Those of before leave first.
    *audience = None;
    let balancer = cluster.http_balancer.address();
    *audience = Some(Audience::start(&cluster.runtime, balancer, cluster.gateway(), stream, count)?);
    Ok(format!("{count} viewers play live/{stream}"))
}

const HELP: &str = "  Type       nodes                      kill NODE | database        start NODE | database
             drain NODE                 scale-in origins | edges    freeze NODE, thaw NODE
             cut NODE OTHER | database  lose NODE PERCENT           heal NODE
             slow database MS           register NODE               deregister NODE
             viewers STREAM COUNT       viewers                     help, quit (or Ctrl-C)
             NODE may also be registry-1 to -3 if there are registry nodes; those cannot be drained or slowed
";
const POLL_INTERVAL: Duration = Duration::from_millis(100);
