//! The attacks, one file for each surface. An attack sends what an attacker would, checks what only
//! it can check, and returns a figure; `Target::withstand` checks node and viewers.

mod connections;
mod decoder_configuration;
mod disk;
mod edge;
mod forged_addresses;
mod frozen_engine;
mod guesses;
mod health;
mod http_heads;
mod log_flood;
mod logins;
mod offers;
mod shares;
mod timestamps;

use crate::target::{Setup, Target};

/// An attack.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) victim: Victim,
}

/// What is attacked.
pub(crate) enum Victim {
    /// The node with default limits that attacks share, one after the other.
    Shared(fn(&Setup, &mut Target) -> anyhow::Result<String>),
    /// Nodes that the attack starts.
    Own(fn(&Setup) -> anyhow::Result<String>),
}

/// In this order. The attacks that take the longest come last.
pub(crate) const CASES: &[Case] = &[
    shared("no attack", |_, target| target.withstand(|_| Ok("for comparison".to_owned()))),
    shared("malformed HTTP heads", http_heads::malformed),
    shared("forged X-Forwarded-For", forged_addresses::forwarded_for),
    shared("forged STUN source", forged_addresses::stun),
    shared("offers of 64 KB", offers::large),
    shared("offers that never connect", offers::unconnected),
    shared("decoder configurations of 4 MiB", decoder_configuration::large),
    shared("decoder configurations in turns", log_flood::alternating_configurations),
    shared("publish without a name", log_flood::unnamed_publishes),
    shared("timestamp 0x7ffffff0", timestamps::jump),
    shared("stream names of one address", shares::stream_names),
    shared("idle RTMP with pings", shares::idle_rtmp),
    shared("wrong logins", logins::wrong),
    shared("guessed keys and tokens", guesses::keys_and_tokens),
    shared("flood of /readyz", health::readyz_flood),
    shared("silent health connections", health::silent),
    shared("frozen engine", frozen_engine::three_seconds),
    own("open files, soft limit 1,024", connections::soft_limit),
    own("open files, hard limit 2,048", connections::hard_limit),
    own("unknown streams on an edge", edge::unknown_streams),
    own("silent relay connections", edge::silent_relay_connections),
    own("disk full while running", disk::full_while_running),
    own("disk full at the start", disk::full_at_start),
];

const fn shared(name: &'static str, attack: fn(&Setup, &mut Target) -> anyhow::Result<String>) -> Case {
    Case { name, victim: Victim::Shared(attack) }
}

const fn own(name: &'static str, attack: fn(&Setup) -> anyhow::Result<String>) -> Case {
    Case { name, victim: Victim::Own(attack) }
}
