//! Rules for dependencies (ARCHITECTURE.md): between crates, between rooms of the engine, between
//! gateways, and on external libraries outside the room that owns them.

use std::fs;
use std::path::PathBuf;

use crate::files::{IGNORED_FOLDERS, Source, assert_no_faults, find, root, rust_sources};

/// First-party crates that a crate may depend on outside its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("media/api", &[]),
    ("media/wire", &[]),
    ("media/registry", &["headwater-api"]),
    ("media/program", &["headwater-api"]),
    ("media/engine", &["headwater-api", "headwater-wire", "headwater-registry", "headwater-program"]),
    ("daemon", &["headwater-api", "headwater-registry", "headwater-program"]),
];

/// The crate that may depend on everything.
const TESTS: &str = "tests";
/// A separate workspace.
const FUZZ: &str = "tests/fuzz";

/// Top-level folders, including planned ones that do not exist yet.
const TOP: &[&str] = &[".ci", ".config", ".github", "cloudformation", "daemon", "docs", "image", "media", "tests"];

/// Rooms of the engine that a room may name with `crate::`, besides itself. Only the room `engine`,
/// `lib.rs` and `main.rs` may name everything.
const ROOMS: &[(&str, &[&str])] = &[
    ("runtime", &[]),
    ("hub", &["runtime"]),
    ("node", &["hub", "runtime"]),
    ("access", &["node", "runtime"]),
    ("events", &["node", "runtime"]),
    ("transcode", &["access", "events", "hub", "node", "runtime"]),
    ("record", &["access", "events", "hub", "node", "runtime"]),
    ("gateway", &["access", "events", "hub", "node", "runtime"]),
    ("cluster", &["gateway::relay", "hub", "node", "runtime"]),
    ("http", &["access", "cluster", "events", "gateway", "hub", "node", "record", "runtime"]),
];

/// The room that assembles the others and may name all of them.
const ASSEMBLY: &str = "engine";

/// Gateways. None of them may name another one.
const GATEWAYS: &[&str] = &["rtmp", "srt", "webrtc", "hls", "relay"];

/// Paths of libraries, and the only folder that may name each.
const ONLY: &[(&str, &str)] = &[("redb::", "media/registry/"), ("mongodb::", "media/registry/")];

/// Names that `media/wire` must not contain outside its tests.
const NOT_IN_WIRE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::thread",
    "std::env",
    "TcpStream",
    "UdpSocket",
    "TcpListener",
    "time::Instant",
    "SystemTime",
];

pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("_test.rs") || path.ends_with("/tests.rs")
}

/// Returns the numbered code lines of a file, without comments and without its test module.
pub(crate) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// Returns every path after `root`, such as `crate::`, with its line number. `crate::{a, b::{c,
/// d}}` yields `a`, `b::c` and `b::d`.
pub(crate) fn paths(code: &[(usize, &str)], root: &str) -> Vec<(usize, String)> {
    let text = code.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
    let mut out = Vec::new();
    for (at, _) in text.match_indices(root) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let number = code[text[..at].matches('\n').count()].0;
        let mut found = Vec::new();
        expand(&text[at + root.len()..], "", &mut found);
        out.extend(found.into_iter().map(|path| (number, path)));
    }
    out
}

/// Appends the paths of the use tree at the start of `text`, each with `prefix`, to `out`. Returns
/// the text after the tree.
fn expand<'a>(text: &'a str, prefix: &str, out: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.chars().next() {
                Some(c) if c.is_alphanumeric() || c == '_' || c == '{' || c == '*' => {
                    rest = expand(rest, prefix, out);
                }
                _ => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(rest, &format!("{path}::"), out),
        None => {
            out.push(path);
            let rest = text[end..].trim_start();
            rest.strip_prefix("as ")
                .map_or(rest, |rest| rest.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
        }
    }
}

/// True if `path` is `name` or a path inside it.
fn is_inside(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Reports the rooms and gateways that a file of the engine names although it must not.
fn check_room(path: &str, inside: &str, code: &[(usize, &str)], faults: &mut Vec<String>) {
    let (room, below) = inside.split_once('/').unwrap_or(("", inside));
    if room == ASSEMBLY || (room.is_empty() && ["main.rs", "lib.rs"].contains(&below)) {
        return;
    }
    let allowed: &[&str] = match ROOMS.iter().find(|(name, _)| *name == room) {
        Some((_, allowed)) => allowed,
        None => {
            faults.push(format!("{path} is in the room \"{room}\", which ARCHITECTURE.md does not list"));
            return;
        }
    };
    for (number, named) in paths(code, "crate::") {
        let of = ROOMS.iter().map(|(name, _)| *name).chain([ASSEMBLY]).find(|name| is_inside(&named, name));
        let may = of.is_none_or(|of| of == room || allowed.iter().any(|a| is_inside(&named, a)));
        if !may {
            faults.push(format!("{path}:{number} names crate::{named}, which {inside} must not name"));
        }
    }
    if let ("gateway", Some((protocol, _))) = (room, below.split_once('/')) {
        let by_crate =
            paths(code, "crate::").into_iter().filter_map(|(n, p)| Some((n, p.strip_prefix("gateway::")?.to_owned())));
        for (number, named) in by_crate.chain(paths(code, "super::super::")) {
            for other in GATEWAYS.iter().filter(|other| **other != protocol && is_inside(&named, other)) {
                faults.push(format!("{path}:{number} names the gateway {other}; gateways must not name each other"));
            }
        }
    }
}

/// Reports the libraries, rooms and gateways that a Rust file names although it must not.
fn check_source(source: &Source, faults: &mut Vec<String>) {
    let Source { path, text } = source;
    if path.starts_with("tests/") || is_test(path) {
        return;
    }
    for (number, line) in code(text) {
        if line.contains("#[path") && line.contains("../") {
            faults.push(format!("{path}:{number} includes a file of another room"));
        }
        for (name, room) in ONLY {
            if line.contains(name) && !path.starts_with(room) {
                faults.push(format!("{path}:{number} names {name}; only {room} may"));
            }
        }
        if path.starts_with("media/wire/") {
            for name in NOT_IN_WIRE.iter().filter(|name| line.contains(**name)) {
                faults.push(format!("{path}:{number} names {name}, but wire does not wait and has no clock"));
            }
        }
    }
    if let Some(inside) = path.strip_prefix("media/engine/src/") {
        check_room(path, inside, &code(text).collect::<Vec<_>>(), faults);
    }
}

/// Reports the forbidden dependencies of one manifest.
fn check_manifest(folder: &str, text: &str, faults: &mut Vec<String>) {
    let allowed = CRATES.iter().find(|(name, _)| *name == folder).map(|(_, allowed)| *allowed);
    let Some(allowed) = allowed else { return };
    let mut in_dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]") && !line.contains("dev-");
        } else if in_dependencies {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if name.starts_with("headwater-") && !allowed.contains(&name) {
                faults.push(format!("{folder} depends on {name}, which no rule allows"));
            }
            if folder == "media/wire" && matches!(name, "tokio" | "tokio-util" | "hyper" | "axum") {
                faults.push(format!("{folder} depends on {name}, which no rule allows"));
            }
            if matches!(name, "redb" | "mongodb") && folder != "media/registry" {
                faults.push(format!("{folder} depends on {name}, which no rule allows"));
            }
        }
    }
}

/// Reports members of the workspace, folders with a manifest and top-level folders for which there
/// is no rule.
fn check_workspace(manifest: &str, crates: &[String], top: &[String], faults: &mut Vec<String>) {
    let manifest: toml::Table = toml::from_str(manifest).unwrap();
    let members: Vec<&str> =
        manifest["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    let expected: Vec<&str> = CRATES.iter().map(|(name, _)| *name).chain([TESTS]).collect();
    let unknown = members.iter().filter(|member| !expected.contains(member));
    faults.extend(unknown.map(|member| format!("Cargo.toml lists {member}, for which there is no rule")));
    let missing = expected.iter().filter(|name| !members.contains(name));
    faults.extend(missing.map(|name| format!("Cargo.toml does not list {name}")));
    // Cargo also adds path dependencies to the workspace, listed or not.
    let unlisted = crates.iter().filter(|name| !expected.contains(&name.as_str()) && *name != FUZZ);
    faults.extend(unlisted.map(|name| format!("there is no rule for the crate {name}")));
    let unexpected = top.iter().filter(|name| !TOP.contains(&name.as_str()));
    faults.extend(unexpected.map(|name| format!("there is no rule for the top-level folder {name}")));
}

#[test]
fn sources_and_manifests_have_only_allowed_dependencies() {
    let mut faults = Vec::new();
    for source in rust_sources() {
        check_source(&source, &mut faults);
    }
    for (folder, _) in CRATES {
        let manifest = root().join(folder).join("Cargo.toml");
        check_manifest(folder, &fs::read_to_string(manifest).unwrap(), &mut faults);
    }
    assert_no_faults(&faults);
}

#[test]
fn every_crate_and_top_level_folder_has_a_rule() {
    let folder_of = |file: PathBuf| file.parent().unwrap().strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let manifests = find(root(), "Cargo.toml").into_iter();
    let crates: Vec<String> = manifests.map(folder_of).filter(|folder| !folder.is_empty()).collect();
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    let top: Vec<String> = folders.filter(|name| !IGNORED_FOLDERS.contains(&name.as_str())).collect();
    let mut faults = Vec::new();
    check_workspace(&fs::read_to_string(root().join("Cargo.toml")).unwrap(), &crates, &top, &mut faults);
    assert_no_faults(&faults);
}

#[test]
fn crate_or_top_level_folder_without_a_rule_is_found() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let faults = |manifest: &str, crates: &[&str], top: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut faults = Vec::new();
        check_workspace(manifest, &owned(crates), &owned(top), &mut faults);
        faults
    };
    let crates = ["media/api", "daemon", "tests", "tests/fuzz"];
    assert_eq!(faults(&manifest, &crates, TOP), [""; 0]);
    let one_more = manifest.replace("members = [", "members = [\"media/utils\", ");
    assert_eq!(faults(&one_more, &crates, TOP), ["Cargo.toml lists media/utils, for which there is no rule"]);
    let one_less = manifest.replace("\"media/wire\", ", "");
    assert_eq!(faults(&one_less, &crates, TOP), ["Cargo.toml does not list media/wire"]);
    let unlisted = ["media/wire", "media/utils"];
    assert_eq!(faults(&manifest, &unlisted, TOP), ["there is no rule for the crate media/utils"]);
    assert_eq!(faults(&manifest, &crates, &["media", "lib"]), ["there is no rule for the top-level folder lib"]);
}

fn faults_of(path: &str, code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    check_source(&Source { path: path.to_owned(), text: format!("//! Purpose.\n{code}\n") }, &mut faults);
    faults
}

#[test]
fn every_forbidden_dependency_of_a_source_is_found() {
    let forbidden = [
        ("media/engine/src/hub/stream.rs", "use crate::gateway::rtmp::Server;"),
        ("media/engine/src/hub/stream.rs", "use crate::{runtime, http::AppState};"),
        ("media/engine/src/transcode/aac.rs", "use crate::gateway::Hls;"),
        ("media/engine/src/gateway/rtmp/play.rs", "use crate::gateway::hls::Hls;"),
        ("media/engine/src/gateway/rtmp/play.rs", "use super::super::webrtc::Whep;"),
        ("media/engine/src/gateway/rtmp/play.rs", "use crate::gateway::{hls::Hls, rtmp};"),
        ("media/engine/src/hub/stream.rs", "use crate::{\n    runtime,\n    http::AppState,\n};"),
        ("media/engine/src/cluster/snapshot.rs", "use crate::gateway::{relay::StreamResolver, rtmp};"),
        ("media/engine/src/node/admission.rs", "use crate::{hub::Hub, http::AppState as S, node::load};"),
        ("media/engine/src/node/load.rs", "let x = crate::engine::Engine::new();"),
        ("media/engine/src/gateway/rtmp/play.rs", "let x = crate::http::AppState::new();"),
        ("media/engine/src/http/rest/mod.rs", "use crate::transcode::Aac;"),
        ("media/engine/src/http/rest/mod.rs", "use crate::engine::Engine;"),
        ("media/engine/src/hub/directory.rs", "use crate::node::load::LoadMeter;"),
        ("media/engine/src/runtime/stages.rs", "use crate::hub::Hub;"),
        ("media/engine/src/admission.rs", "fn f() {}"),
        ("media/engine/src/misc/rest.rs", "fn f() {}"),
        ("media/engine/src/hub/stream.rs", "use redb::Database;"),
        ("daemon/src/boot.rs", "use mongodb::Client;"),
        ("daemon/src/main.rs", "#[path = \"../../media/engine/src/logging.rs\"]\nmod logging;"),
        ("media/wire/src/time.rs", "use std::time::Instant;"),
        ("media/wire/src/time.rs", "use tokio::time::sleep;"),
        ("media/wire/src/time.rs", "use std::net::UdpSocket;"),
    ];
    for (path, code) in forbidden {
        assert_eq!(faults_of(path, code).len(), 1, "{path}: {code}: {:?}", faults_of(path, code));
    }
}

#[test]
fn allowed_dependencies_comments_and_tests_pass() {
    let allowed = [
        ("media/engine/src/engine/run.rs", "use crate::{gateway, http, hub, transcode};"),
        ("media/engine/src/gateway/rtmp/play.rs", "use crate::hub::Hub;\nuse crate::gateway::rtmp::link;"),
        ("media/engine/src/http/rest/mod.rs", "use crate::gateway::hls::Hls;\nuse crate::access::Access;"),
        (
            "media/engine/src/cluster/snapshot.rs",
            "use crate::gateway::relay::{\n    OwnershipProbe, StreamResolver,\n};",
        ),
        ("media/engine/src/node/admission.rs", "use crate::hub::Hub;\nuse crate::node::load::LoadMeter;"),
        (
            "media/engine/src/hub/stream.rs",
            "// crate::http is another room\n#[cfg(test)]\nmod tests {\nuse crate::http;\n}",
        ),
        ("media/engine/src/hub/stream_test.rs", "use crate::http;"),
        ("media/registry/src/embedded.rs", "use redb::Database;"),
        ("media/wire/src/webrtc/stun.rs", "use std::net::SocketAddr;"),
    ];
    for (path, code) in allowed {
        assert_eq!(faults_of(path, code), [""; 0], "{path}");
    }
}

#[test]
fn forbidden_dependency_of_a_manifest_is_found_and_one_for_tests_is_not() {
    let faults = |folder, text| {
        let mut faults = Vec::new();
        check_manifest(folder, text, &mut faults);
        faults.len()
    };
    assert_eq!(faults("daemon", "[dependencies]\nheadwater-engine.workspace = true\n"), 1);
    assert_eq!(faults("media/wire", "[dependencies]\ntokio = \"1\"\nheadwater-api = { path = \"../api\" }\n"), 2);
    assert_eq!(faults("media/engine", "[dependencies]\nredb.workspace = true\n"), 1);
    assert_eq!(faults("media/wire", "[dev-dependencies]\ntokio = \"1\"\n"), 0);
    assert_eq!(faults("daemon", "[dependencies]\nheadwater-api.workspace = true\nclap = \"4\"\n"), 0);
}
