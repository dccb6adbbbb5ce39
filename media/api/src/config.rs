//! The one configuration tree of a node, read from one TOML file.
//!
//! Unknown keys are refused, and values that make no sense do not load. Each default stands beside its field.
//! `docs/headwater.example.toml` is the commented reference; a test compares it with [`Config::default`].
//! This file must not know where the file lies or who reads it.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything a node can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Web server: pages, REST, WHEP, HLS.
    pub http: Http,
    /// Certificate for the TLS listeners.
    pub tls: Tls,
    /// RTMP server.
    pub rtmp: Rtmp,
    /// SRT server.
    pub srt: Srt,
    /// WebRTC media.
    pub webrtc: Webrtc,
    /// Links between nodes.
    pub relay: Relay,
    /// Health and metrics.
    pub health: Health,
    /// HLS and LL-HLS.
    pub hls: Hls,
    /// Where documents are kept.
    pub registry: Registry,
    /// The database that a registry node runs.
    pub mongod: Mongod,
    /// Where the daemon finds out what this machine is.
    pub metadata: Metadata,
    /// When the node is full.
    pub limits: Limits,
}

impl Config {
    /// Reads a configuration from TOML text.
    ///
    /// # Errors
    /// The first line that cannot be used, and why.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        toml::from_str(text).map_err(|e| ParseError::new(text, &e))
    }
}

/// The first line of a configuration that cannot be used, in one sentence: an unknown key, or a value that may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{text}`: {problem}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// The line itself, without its indentation.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ParseError {
    fn new(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        Self {
            line: before + 1,
            text: text.lines().nth(before).unwrap_or_default().trim().to_owned(),
            problem: error.message().trim_end().replace('\n', "; "),
        }
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes publishers, transcodes, records.
    Origin,
    /// Serves viewers, pulls streams from origins.
    Edge,
    /// Runs the MongoDB of its cluster, and no engine.
    Registry,
    /// Origin and edge in one, with an embedded registry.
    #[default]
    Standalone,
}

impl Role {
    /// As tags, files and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
            Self::Registry => "registry",
            Self::Standalone => "standalone",
        }
    }
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// What it does; the daemon writes it.
    pub role: Role,
    /// Its name, unique in the cluster: the instance id on EC2.
    pub id: String,
    /// Which life of the node this is, as the registry gave it on registration; the daemon writes it.
    pub boot_epoch: Option<u64>,
    /// Folder for everything that must survive a restart. Must be writable.
    pub data_dir: PathBuf,
    /// Addresses viewers can reach, public ones first; used in ICE candidates. Empty: the addresses of the interfaces.
    pub addresses: Vec<std::net::IpAddr>,
    /// Base URL of its web server, as viewers and other nodes' hints have it (`https://media-1.example.com:5443`). Without
    /// it: its first address and the port of HTTP.
    pub url: Option<String>,
    /// Live streams at most; a publisher beyond that is refused.
    pub max_streams: NonZeroUsize,
    /// How long a drain may take, in milliseconds, before what is left is cut.
    pub drain_ms: NonZeroU32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            role: Role::default(),
            id: "local".to_owned(),
            boot_epoch: None,
            data_dir: PathBuf::from("/var/lib/headwater"),
            addresses: Vec::new(),
            url: None,
            max_streams: nzu(1_000),
            drain_ms: nz(10_000),
        }
    }
}

/// Web server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Plain HTTP.
    pub listen: SocketAddr,
    /// HTTPS; opened only if `[tls]` names a certificate.
    pub tls_listen: SocketAddr,
    /// Connections at most, on both listeners together; one more is closed at once.
    pub max_connections: NonZeroUsize,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: any(5080), tls_listen: any(5443), max_connections: nzu(20_000) }
    }
}

/// Certificate for HTTPS and RTMPS. Both files or neither.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// RTMP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rtmp {
    /// Plain RTMP.
    pub listen: SocketAddr,
    /// RTMPS; opened only if `[tls]` names a certificate.
    pub tls_listen: SocketAddr,
    /// Connections at most, publishers and players together; one more is closed at once.
    pub max_connections: NonZeroUsize,
}

impl Default for Rtmp {
    fn default() -> Self {
        Self { listen: any(1935), tls_listen: any(8443), max_connections: nzu(10_000) }
    }
}

/// SRT server. This version reads and checks the section, but serves no SRT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Srt {
    /// UDP address.
    pub listen: SocketAddr,
}

impl Default for Srt {
    fn default() -> Self {
        Self { listen: any(4200) }
    }
}

/// WebRTC media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webrtc {
    /// UDP port of the first worker; worker n has `port + n`. 0: any free ports.
    pub port: u16,
    /// Worker threads, 64 at most. 0: one per core.
    pub workers: u8,
    /// Viewers at most, over all workers; one more gets 503.
    pub max_viewers: NonZeroUsize,
}

impl Default for Webrtc {
    fn default() -> Self {
        Self { port: 50_000, workers: 0, max_viewers: nzu(10_000) }
    }
}

/// Links between nodes; opened only if there is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// TCP address, inside the VPC only.
    pub listen: SocketAddr,
    /// File with the secret that all nodes of the cluster share, at least 16 bytes. Without it a node is alone.
    pub secret_file: Option<PathBuf>,
    /// Relays to ask for streams that are not here, instead of the registry. For a few nodes without a database.
    pub origins: Vec<SocketAddr>,
    /// Edges and streams at most: one connection per stream and edge; one more is closed at once.
    pub max_connections: NonZeroUsize,
}

impl Default for Relay {
    fn default() -> Self {
        Self { listen: any(5000), secret_file: None, origins: Vec::new(), max_connections: nzu(4_000) }
    }
}

/// Health and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
}

impl Default for Health {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 5090)) }
    }
}

/// HLS and LL-HLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hls {
    /// Duration of a part, in milliseconds. Shorter: less delay, more requests.
    pub part_ms: NonZeroU32,
    /// Target duration of a segment, in milliseconds; segments end at key frames only.
    pub segment_ms: NonZeroU32,
    /// Finished segments kept in the playlist.
    pub window: NonZeroU32,
}

impl Default for Hls {
    fn default() -> Self {
        Self { part_ms: nz(200), segment_ms: nz(2_000), window: nz(6) }
    }
}

/// Instance metadata of EC2, which the daemon asks before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Where it answers.
    pub endpoint: SocketAddr,
    /// True: without it the node does not start. False: without it this is a machine on its own; on EC2 hardware it is
    /// wanted all the same.
    pub required: bool,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { endpoint: SocketAddr::from(([169, 254, 169, 254], 80)), required: false }
    }
}

/// When the node is full: from then on newcomers are sent elsewhere, and who is here stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Viewers at most, all protocols together.
    pub max_viewers: NonZeroUsize,
    /// Megabits a second that it can send to viewers. Without it: what EC2 promises for the instance's type, else the
    /// speed of its network interface; if that is not known either, what is sent limits nothing.
    pub egress_mbps: Option<NonZeroU32>,
    /// Full when so much of that is used, in percent. 100 or more: never.
    pub egress_percent: NonZeroU32,
    /// Full when all cores together were so busy over the last five seconds, in percent. 100 or more: never. If the file does
    /// not say it, the daemon writes 90 on EC2, where the machine is ours alone.
    pub cpu_percent: NonZeroU32,
    /// Megabytes that must be free in `data_dir`; with less the node is not ready. 0: none.
    pub min_free_mb: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_viewers: nzu(20_000),
            egress_mbps: None,
            egress_percent: nz(90),
            cpu_percent: nz(100),
            min_free_mb: 100,
        }
    }
}

/// Where documents are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Which store.
    pub kind: RegistryKind,
    /// File whose first line is the MongoDB connection string, password included; read once, at the start.
    pub uri_file: Option<PathBuf>,
}

/// The database that a registry node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mongod {
    /// MongoDB's server: a path, or a name that is looked for on PATH.
    pub program: PathBuf,
    /// TCP port, the same on all registry nodes of a cluster; the other nodes look for them there.
    pub port: NonZeroU16,
}

impl Default for Mongod {
    fn default() -> Self {
        Self { program: PathBuf::from("mongod"), port: NonZeroU16::new(27_017).expect("a literal above zero") }
    }
}

/// Which store keeps the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// A file in `data_dir`, for one standalone node.
    #[default]
    Embedded,
    /// MongoDB, shared by all nodes of a cluster; wants `uri_file`.
    MongoDb,
}

const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

const fn nz(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("a literal above zero")
}

const fn nzu(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("a literal above zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_used_is_named_with_its_key() {
        let check = |text: &str, expected: &str| {
            let sentence = Config::parse(text).unwrap_err().to_string();
            assert!(sentence.starts_with(expected), "{text:?}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence:?}");
        };
        check(
            "[hls]\n  part_secs = 6\n",
            "line 2, `part_secs = 6`: unknown field `part_secs`, expected one of `part_ms`",
        );
        check("[hls]\npart_ms = 0", "line 2, `part_ms = 0`: invalid value: integer `0`, expected a nonzero u32");
        check("[http]\nlisten = \"here\"", "line 2, `listen = \"here\"`: invalid socket address syntax");
        check("[node]\nrole = \"king\"", "line 2, `role = \"king\"`: unknown variant `king`");
        check("\n[hsl]\n", "line 2, `[hsl]`: unknown field `hsl`");
        check("[node\n", "line 1, `[node`: ");
        check("[webrtc]\nport = 70000", "line 2, `port = 70000`: invalid value");
    }

    #[test]
    fn an_empty_table_gives_the_defaults() {
        assert_eq!(Config::parse("[hls]\n[node]\n").unwrap(), Config::default());
    }
}
