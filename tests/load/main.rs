//! `headwater-load`: measures the cost of the engine next to the machine's floor and
//! nginx, in one run.
//!
//! One process runs publishers and viewers; the server under test is another process, whose CPU
//! time and memory the kernel counts. docs/performance.md explains the figures. All traffic stays
//! on the loopback interface.

mod cases;
mod floor;
mod hls;
mod http;
mod mark;
mod plot;
mod process;
mod report;
mod rtmp;
mod server;
mod source;
mod tally;
mod udp;
mod viewers;
mod whep;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use cases::fanout::{self, Protocol};
use cases::{Setup, all, curve, in_turns, ingest, join, side_by_side};
use report::{Report, print, progress};

/// Measures headwater-engine under load, next to a floor and nginx-rtmp: in turns, publishers at
/// the same time.
#[derive(Debug, Parser)]
#[command(version, after_help = VERDICTS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// The engine to measure; by default the one in the folder of this program.
    /// Use a release build.
    #[arg(long, global = true)]
    engine: Option<PathBuf>,
    /// Length of each measured window.
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Number of measurements per server.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Write every single measurement to this file, as JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Skip nginx.
    #[arg(long, global = true)]
    no_peer: bool,
    /// Skip the floor.
    #[arg(long, global = true)]
    no_floor: bool,
    #[command(flatten)]
    attach: server::AttachArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// RTMP players of one stream; prints which promises hold.
    #[command(after_help = VERDICTS)]
    Rtmp {
        #[arg(long, default_value_t = 200, value_parser = count())]
        players: u64,
        /// The engine's setting `[rtmp] merge_audio`: `true`, `false`, or both, one after the
        /// other. With --pid: the setting of the running engine.
        #[arg(long, value_delimiter = ',', default_values_t = [true])]
        merge_audio: Vec<bool>,
    },
    /// WHEP viewers of one stream.
    Whep {
        #[arg(long, default_value_t = 200, value_parser = count())]
        viewers: u64,
    },
    /// HLS viewers that poll a playlist and fetch segments.
    Hls {
        #[arg(long, default_value_t = 1_000, value_parser = count())]
        viewers: u64,
        /// Compare an app whose viewers need a token, and whose segments are signed, with an open
        /// one.
        #[arg(long)]
        protected: bool,
    },
    /// LL-HLS viewers that block on the playlist and fetch parts.
    Llhls {
        #[arg(long, default_value_t = 50, value_parser = count())]
        viewers: u64,
    },
    /// Viewers of a stream that a node relays from another one, next to viewers of a local stream;
    /// and the first viewer of many streams.
    Edge {
        #[arg(long, default_value_t = 100, value_parser = count())]
        viewers: u64,
        /// Streams that get their first viewer.
        #[arg(long, default_value_t = all::JOINS as u64, value_parser = count())]
        streams: u64,
    },
    /// RTMP publishers without viewers.
    Ingest {
        #[arg(long, default_value_t = 50, value_parser = count())]
        publishers: u64,
    },
    /// Time from the request to the first frame or packet.
    Join {
        #[arg(long, default_value_t = all::JOINS as u64, value_parser = count())]
        times: u64,
        /// Compare WHEP viewers that present a token with those of an open app.
        #[arg(long)]
        protected: bool,
    },
    /// Cost by number of viewers, as CSV and SVG.
    Curve {
        /// `rtmp`, `whep` or `hls`; default: all three.
        #[arg(value_parser = ["rtmp", "whep", "hls"])]
        protocols: Vec<String>,
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50, 100, 200, 350, 500], value_parser = count())]
        counts: Vec<u64>,
        /// Output folder.
        #[arg(long, default_value = "docs/performance")]
        out: PathBuf,
    },
    /// Every promise, compared with its figure.
    All {
        /// Divide the number of viewers and of joins by this, for a quick run on a small machine.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=50))]
        shrink: u64,
    },
    /// The sender of the floor; started by this tool itself.
    #[command(hide = true)]
    FloorSender { kind: floor::FloorKind },
}

/// Parses a number of viewers. Bounded, because each needs a socket here and one in the server.
fn count() -> clap::builder::RangedU64ValueParser {
    clap::builder::RangedU64ValueParser::new().range(1..=5_000)
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Command::FloorSender { kind } = arguments.command {
        return floor::send(kind);
    }
    process::raise_open_files();
    // One thread for all viewers, so that the server under test has the rest of the machine.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let common = arguments.common;
    let setup = Setup {
        engine: match common.engine {
            Some(engine) => engine,
            None => std::env::current_exe()?.with_file_name("headwater-engine"),
        },
        attach: common.attach,
        source: Arc::new(source::Source::open()?),
        window: Duration::from_secs(common.seconds),
        rounds: common.rounds,
        peer: !common.no_peer,
        floor: !common.no_floor,
    };
    if cfg!(debug_assertions) {
        progress("this is a debug build: its figures are meaningless");
    }
    let mut report = Report::default();
    match arguments.command {
        Command::Rtmp { players, merge_audio } => {
            for merge_audio in merge_audio {
                run_fanout(&setup, Protocol::rtmp(merge_audio), players, &mut report).await;
                print(&all::table(&all::rtmp_promises(merge_audio, players as usize), &report));
            }
        }
        Command::Whep { viewers } => run_fanout(&setup, Protocol::Whep, viewers, &mut report).await,
        Command::Hls { viewers, protected: true } => {
            let viewers = viewers as usize;
            let one = async |subject, round| fanout::run(&setup, Protocol::Hls, subject, viewers, round).await;
            all::protected(&setup, &mut report, one).await;
            print(&all::table(&all::protected_hls_promise(viewers), &report));
        }
        Command::Join { times, protected: true } => {
            let times = times as usize;
            let one = async |subject, round| join::run(&setup, Protocol::Whep, subject, times, round).await;
            all::protected(&setup, &mut report, one).await;
            print(&all::table(&all::protected_whep_promise(times), &report));
        }
        Command::Hls { viewers, protected: false } => run_fanout(&setup, Protocol::Hls, viewers, &mut report).await,
        Command::Llhls { viewers } => run_fanout(&setup, Protocol::Llhls, viewers, &mut report).await,
        Command::Edge { viewers, streams } => {
            let (viewers, streams) = (viewers as usize, streams as usize);
            all::edge(&setup, viewers, streams, &mut report).await;
            print(&all::table(&all::edge_promises(viewers, streams), &report));
        }
        Command::Ingest { publishers } => {
            side_by_side(setup.rounds, &setup.subjects(true, false), &mut report, async |subject, round| {
                ingest::run(&setup, subject, publishers as usize, round).await
            })
            .await;
        }
        Command::Join { times, protected: false } => {
            for protocol in [Protocol::Rtmp, Protocol::Whep] {
                let subjects = setup.subjects(protocol.has_peer(), false);
                in_turns(setup.rounds, &subjects, &mut report, async |subject, round| {
                    join::run(&setup, protocol, subject, times as usize, round).await
                })
                .await;
            }
        }
        Command::Curve { protocols, counts, out } => {
            let counts: Vec<_> = counts.iter().map(|c| *c as usize).collect();
            for protocol in [Protocol::Rtmp, Protocol::Whep, Protocol::Hls] {
                if protocols.is_empty() || protocols.iter().any(|p| p == protocol.name()) {
                    curve::run(&setup, protocol, &counts, &out, &mut report).await?;
                }
            }
        }
        Command::All { shrink } => {
            all::run(&setup, shrink as usize, &mut report).await;
            print(&all::table(&all::promises(shrink as usize), &report));
        }
        Command::FloorSender { .. } => {}
    }
    print(&report.table());
    if let Some(file) = common.json {
        report.write_json(&file)?;
    }
    anyhow::ensure!(!report.0.is_empty(), "nothing could be measured");
    Ok(())
}

/// Explains the verdicts of `rtmp` and `all` about RTMP players.
const VERDICTS: &str = "\
Verdicts about RTMP players compare CPU time per byte with nginx-rtmp and with a floor
that makes as many writes as the engine. They are promised for 200 players.
  merge_audio = true, case `rtmp`: at most 1.6 x the floor and 0.6 x nginx-rtmp.
    The floor makes one TCP write per video frame and player.
  merge_audio = false, case `rtmp-unmerged`: at most 1.4 x the floor and 1.0 x nginx-rtmp.
    The floor makes one TCP write per video frame and one per audio packet and player,
    with the same bytes in total.";

async fn run_fanout(setup: &Setup, protocol: Protocol, count: u64, report: &mut Report) {
    let subjects = setup.subjects(protocol.has_peer(), protocol.floor().is_some());
    in_turns(setup.rounds, &subjects, report, async |subject, round| {
        fanout::run(setup, protocol, subject, count as usize, round).await
    })
    .await;
}
