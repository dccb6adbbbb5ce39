//! For a person: says what there is to open and to try, and takes commands line by line until it is told to end.

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use headwater_tests::delay::Manner;
use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::node::Role;
use crate::say;
use crate::scene::Scene;

/// Runs until the user ends it.
pub(crate) fn run(mut scene: Scene, ending: &watch::Receiver<bool>) -> anyhow::Result<()> {
    welcome(&scene);
    let (send, lines) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    while !*ending.borrow() {
        match lines.recv_timeout(LOOK) {
            Ok(line) if line.trim() == "quit" => break,
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => match obey(&mut scene, &line) {
                Ok(done) => say(&done),
                Err(e) => say(&format!("{e:#}")),
            },
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            // No terminal: it still ends by a signal.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => std::thread::park_timeout(LOOK),
        }
    }
    say("==> taking everything down");
    drop(scene);
    Ok(())
}

fn welcome(scene: &Scene) {
    let publish = scene.publish_url("live/demo");
    let server = publish.trim_end_matches("/demo");
    say("\n  The cluster is up.\n");
    say(&format!("  Publish    OBS: server {server}, stream key demo"));
    say(
        "             ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine=frequency=330 -pix_fmt yuv420p \\",
    );
    say(&format!("               -c:v libx264 -preset veryfast -tune zerolatency -g 30 -c:a aac -f flv {publish}"));
    say(&format!("  Player     {}", scene.page_url("/live/play.html?id=demo")));
    say(&format!(
        "  Dashboard  {}  (to see addresses and delete nodes: admin, {})\n",
        scene.page_url("/"),
        scene.password
    ));
    say("  The balancer gives each connection to the next node. The nodes themselves, from this machine:\n");
    nodes(scene);
    say(&format!("\n  Logs       {}/NODE/log\n", scene.folder().display()));
    say(HELP);
}

fn nodes(scene: &Scene) {
    match scene.registry.set() {
        None => scene.registry.addresses().iter().for_each(|a| say(&format!("    {:<10} {:<8} {a}", "registry", ""))),
        Some(set) => {
            for (at, member) in set.members().iter().enumerate() {
                let (role, address) = (member.role.word(), member.host().address());
                let standing = set.standing(at);
                say(&format!("    {:<10} {role:<8} {address:<28} {:<21} {standing}", member.name, member.id()));
            }
        }
    }
    for node in &scene.nodes {
        let state = if node.is_ready() { "ready" } else { "not ready" };
        say(&format!(
            "    {:<10} {:<8} http://{:<21} {:<21} {state}",
            node.name,
            node.role.word(),
            node.http(),
            node.id()
        ));
    }
}

/// Does what a line says, and says what came of it.
fn obey(scene: &mut Scene, line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let of_a_group =
        |scene: &Scene, name: &str| scene.find(name).with_context(|| format!("there is no node {name} of a group"));
    match words.as_slice() {
        ["help"] => Ok(HELP.to_owned()),
        ["nodes"] => {
            nodes(scene);
            Ok(format!("    {} edges and {} origins are healthy", scene.http.healthy(), scene.rtmp.healthy()))
        }
        ["kill", "database"] => {
            scene.registry.kill().map(|()| "the database is dead; `start database` brings it back".to_owned())
        }
        ["start", "database"] => scene.registry.restart().map(|()| "the database is back".to_owned()),
        ["slow", "database", ms] => {
            let Some(line) = scene.registry.line() else {
                bail!("registry nodes are reached directly: there is no line to slow; try `freeze registry-1`")
            };
            line.set(Manner::Late(Duration::from_millis(ms.parse().context("milliseconds")?)));
            Ok(format!("the database answers {ms} ms later"))
        }
        ["kill", name] => {
            let node = scene.node(name)?;
            node.kill();
            Ok(match node.role {
                Role::Registry => format!("{name} is dead; `start {name}` starts it again, with its data"),
                _ => format!("{name} is dead; `start {name}` launches another instance in its place"),
            })
        }
        ["start", name] => match (scene.find(name), scene.registry.set_mut()) {
            (Some(at), _) => {
                scene.relaunch(at)?;
                Ok(format!("{name} is ready, as {}", scene.nodes[at].id()))
            }
            (None, Some(set)) => {
                let at = set.members().iter().position(|member| member.name == *name);
                let at = at.with_context(|| format!("there is no node {name}"))?;
                set.start_member(at)?;
                Ok(format!("{name} is {}", set.wait_member(at)?))
            }
            (None, None) => bail!("there is no node {name}"),
        },
        ["freeze", name] => {
            scene.node(name)?.signal(Signal::SIGSTOP);
            Ok(format!("{name} stands still; `thaw {name}` lets it go on"))
        }
        ["thaw", name] => {
            scene.node(name)?.signal(Signal::SIGCONT);
            Ok(format!("{name} goes on"))
        }
        ["drain", name] => {
            let at = of_a_group(scene, name)?;
            scene.groups.terminate(scene.nodes[at].id())?;
            Ok(format!("Auto Scaling ends {name}: it drains; `start {name}` launches another instance in its place"))
        }
        ["scale-in", group @ ("origins" | "edges")] => Ok(match scene.groups.scale_in(group) {
            Some(id) => format!("Auto Scaling ends {id}: it drains"),
            None => "every instance of the group is protected: nothing is ended".to_owned(),
        }),
        ["cut", name, "database"] => {
            let addresses = scene.registry.addresses();
            let host = scene.node(name)?.host();
            addresses.into_iter().try_for_each(|address| host.cut(address))?;
            Ok(format!("{name} and the database do not reach each other; `heal {name}` ends that"))
        }
        ["cut", name, other] => {
            let other_address = scene.node(other)?.host().address();
            scene.node(name)?.host().cut(other_address)?;
            Ok(format!("{name} and {other} do not reach each other; `heal {name}` ends that"))
        }
        ["lose", name, percent] => {
            scene.node(name)?.host().lose(percent.parse().context("percent")?)?;
            Ok(format!("{percent} of 100 packets to and from {name} are lost; `heal {name}` ends that"))
        }
        ["heal", name] => {
            scene.node(name)?.host().heal()?;
            Ok(format!("the network of {name} is whole"))
        }
        _ => bail!("not understood: {line}\n{HELP}"),
    }
}

const HELP: &str = "  Type       nodes                      kill NODE | database        start NODE | database
             drain NODE                 scale-in origins | edges    freeze NODE, thaw NODE
             cut NODE OTHER | database  lose NODE PERCENT           heal NODE
             slow database MS           help                        quit (or Ctrl-C)
             NODE may be registry-1 to -3 where these run the registry; they have no group and no line
";
const LOOK: Duration = Duration::from_millis(100);
