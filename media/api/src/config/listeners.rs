//! The addresses that a node listens on, and how many connections it accepts there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Listen;
use crate::IpNetwork;

/// Listeners of the web server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address for plain HTTP.
    pub listen: Listen,
    /// Address for HTTPS. Without a certificate in `[tls]`, the node makes a self-signed one.
    pub tls_listen: Listen,
    /// Maximum number of connections on both listeners together; further ones are closed at once.
    pub max_connections: NonZeroUsize,
    /// Networks of the proxies and load balancers whose `X-Forwarded-For` and `X-Forwarded-Proto`
    /// are believed, and whose connections count for no share of [`Limits`](super::Limits). If the
    /// file does not set it, the daemon writes the networks of the VPC on EC2.
    pub trusted_proxies: Vec<IpNetwork>,
}

impl Default for Http {
    fn default() -> Self {
        let (listen, tls_listen) = (any(5080).into(), any(5443).into());
        Self { listen, tls_listen, max_connections: count(20_000), trusted_proxies: Vec::new() }
    }
}

/// Certificate for HTTPS and RTMPS. Both files or neither; without them, HTTPS uses a self-signed
/// certificate and there is no RTMPS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// Listeners of the RTMP server, and how it writes to players.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rtmp {
    /// Address for plain RTMP.
    pub listen: Listen,
    /// Address for RTMPS; opened only if `[tls]` names a certificate.
    pub tls_listen: Listen,
    /// Maximum number of connections, publishers and players together; further ones are closed at
    /// once.
    pub max_connections: NonZeroUsize,
    /// True: audio waits for the next video frame, at most 45 ms, and leaves in the same write.
    /// False: every frame is written at once; audio arrives earlier, and a player costs 2.5 times
    /// as many writes (30 video frames and 47 audio packets per second).
    pub merge_audio: bool,
}

impl Default for Rtmp {
    fn default() -> Self {
        let (listen, tls_listen) = (any(1935).into(), any(8443).into());
        Self { listen, tls_listen, max_connections: count(10_000), merge_audio: true }
    }
}

/// UDP ports and workers for WebRTC media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webrtc {
    /// UDP port of the first worker; worker n uses `port + n`. 0: any free ports.
    pub port: u16,
    /// Number of worker threads, 64 at most. 0: one per core.
    pub workers: u8,
    /// Maximum number of viewers of all workers together; further ones get 503.
    pub max_viewers: NonZeroUsize,
    /// Maximum number of sessions whose viewer has not connected yet. If an offer exceeds it, the
    /// oldest of them is dropped.
    pub max_connecting: NonZeroUsize,
}

impl Default for Webrtc {
    fn default() -> Self {
        Self { port: 50_000, workers: 0, max_viewers: count(10_000), max_connecting: count(1_000) }
    }
}

/// Links between nodes; opened only if there is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// TCP address; must be reachable from inside the VPC only.
    pub listen: SocketAddr,
    /// File with the secret that all nodes of the cluster share, at least 16 bytes. Without it, the
    /// node has no links to others.
    pub secret_file: Option<PathBuf>,
    /// Relays to query for streams that are not on this node, instead of the registry. For a few
    /// nodes without a database.
    pub origins: Vec<SocketAddr>,
    /// Maximum number of connections, one per stream and edge; further ones are closed at once.
    pub max_connections: NonZeroUsize,
}

impl Default for Relay {
    fn default() -> Self {
        Self { listen: any(5000), secret_file: None, origins: Vec::new(), max_connections: count(4_000) }
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

const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

const fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("a literal above zero")
}
