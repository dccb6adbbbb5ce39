//! The fuzz targets in the development build, without sanitizers: each runs for a few seconds on
//! its seeds, on all their prefixes, and on mutations of them. A fixed random seed makes every run
//! try the same inputs in the same order; a slower machine tries fewer of them.
//!
//! ```text
//!   seeds/TARGET --prefixes, mutations--> src/TARGET.rs --panic--> the input in hexadecimal
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

#[allow(unreachable_pub, reason = "the programs of libFuzzer use it as a crate")]
#[path = "src/lib.rs"]
mod targets;

/// Time for each target.
const RUN_DURATION: Duration = Duration::from_secs(5);

/// Maximum number of mutations that are applied to one input.
const MAX_MUTATIONS: usize = 6;

/// Maximum length of a mutated input. The longest seed is half as long.
const MAX_INPUT_BYTES: usize = 16 << 10;

/// Values at the limits of lengths, counts and signed numbers.
const SPECIAL_BYTES: [u8; 7] = [0, 1, 0x3f, 0x7f, 0x80, 0xfe, 0xff];

/// Declares the list of targets and one test for each of them.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($name)),*];

        mod no_mutated_seed_breaks {
            $(
                #[test]
                fn $name() {
                    super::run(stringify!($name), super::targets::$name::run);
                }
            )*
        }
    };
}

targets!(
    client_hello,
    cmaf,
    codec_headers,
    hls_names,
    relay,
    rtcp,
    rtmp_amf0,
    rtmp_chunk,
    rtmp_handshake,
    rtmp_session,
    rtmp_tag,
    rtp,
    sdp_offer,
    stun,
);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Names of the files in a folder, sorted.
fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("seeds").join(target);
    let seeds = file_names(&folder).into_iter().map(|name| std::fs::read(folder.join(name)).unwrap()).collect();
    assert!(!Vec::is_empty(&seeds), "{} has no seeds", folder.display());
    seeds
}

/// Runs a target on its seeds, on all prefixes of them, and on mutations until the time is over.
fn run(name: &str, target: fn(&[u8])) {
    let (start, seeds) = (Instant::now(), seeds(name));
    for seed in &seeds {
        check(name, target, seed);
    }
    let prefixes = seeds.iter().flat_map(|seed| (0..seed.len()).map(|end| seed[..end].to_vec()));
    let mut random = StdRng::seed_from_u64(1);
    let mutations = std::iter::repeat_with(|| mutated(&seeds, &mut random));
    for input in prefixes.chain(mutations).take_while(|_| start.elapsed() < RUN_DURATION) {
        check(name, target, &input);
    }
}

/// Runs a target on one input. If it panics, fails with the input.
fn check(name: &str, target: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("the target {name} panics on these {} bytes: {hex}", input.len());
    }
}

/// Returns a seed to which a few mutations are applied.
fn mutated(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=MAX_MUTATIONS) {
        mutate(&mut input, seeds, random);
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let at = random.random_range(0..input.len());
    let end = random.random_range(at..=input.len().min(at + 64));
    match random.random_range(0..8) {
        0 | 1 => input[at] ^= 1 << random.random_range(0..8),
        2 => input[at] = random.random(),
        3 => input[at] = SPECIAL_BYTES[random.random_range(0..SPECIAL_BYTES.len())],
        4 => input.truncate(at),
        5 => drop(input.drain(at..end)),
        // The same bytes twice.
        6 => drop(input.splice(at..at, input[at..end].to_vec())),
        // The rest of any seed, from any position.
        _ => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

#[test]
fn every_fuzz_target_has_seeds_a_program_and_a_test() {
    let programs = file_names(&folder().join("fuzz_targets"));
    assert_eq!(programs, TARGETS.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
    assert_eq!(file_names(&folder().join("seeds")), TARGETS);
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(folder().join("Cargo.toml")).unwrap()).unwrap();
    let mut bins: Vec<_> = manifest["bin"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    bins.sort_unstable();
    assert_eq!(bins, TARGETS);
    for target in TARGETS {
        assert!(seeds(target).iter().all(|seed| seed.len() <= MAX_INPUT_BYTES / 2), "a seed of {target} is too long");
    }
}

#[test]
fn panic_of_a_target_is_reported_with_its_input() {
    fn target(input: &[u8]) {
        assert_ne!(input, [0xca, 0xfe]);
    }
    check("example", target, &[0xca]);
    let report = std::panic::catch_unwind(|| check("example", target, &[0xca, 0xfe])).unwrap_err();
    assert_eq!(report.downcast_ref::<String>().unwrap(), "the target example panics on these 2 bytes: cafe");
}
