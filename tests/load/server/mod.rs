//! The servers under test: started with a temporary folder and free ports, stopped on drop.
//!
//! A server is its processes and its addresses; the cases must not know which server it is.

mod engine;
mod nginx;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::process::Processes;

/// Which server to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ServerKind {
    /// `headwater-engine`.
    Engine,
    /// `headwater-engine` that relays from another one; only the relaying one is measured.
    Edge,
    /// `headwater-engine` whose viewers need a token.
    Protected,
    /// Debian's nginx with its RTMP module, one worker.
    Nginx,
}

impl ServerKind {
    /// Its name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Engine => "headwater",
            Self::Edge => "edge",
            Self::Protected => "protected",
            Self::Nginx => "nginx-rtmp",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: ServerKind,
    pub(crate) processes: Processes,
    /// RTMP address for publishers.
    pub(crate) publish: SocketAddr,
    pub(crate) rtmp: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The token of viewers; `None` if they need none.
    token: Option<String>,
    /// The origin of an edge.
    _origin: Option<Box<Server>>,
    /// Kept for their `Drop`, in this order: the process ends before its folder is removed.
    _child: Option<KillOnDrop>,
    _folder: Option<Folder>,
}

/// Arguments that select a running engine instead of starting one.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct AttachArgs {
    /// Measure this running engine instead of starting one: its process id (needs
    /// --rtmp and --http, too).
    #[arg(long, global = true, requires_all = ["rtmp", "http"])]
    pid: Option<i32>,
    /// RTMP address of the running engine.
    #[arg(long, global = true, requires = "pid")]
    rtmp: Option<SocketAddr>,
    /// HTTP address of the running engine.
    #[arg(long, global = true, requires = "pid")]
    http: Option<SocketAddr>,
}

impl AttachArgs {
    /// True if a running engine is measured, whose settings this tool cannot change.
    pub(crate) fn is_set(self) -> bool {
        self.pid.is_some()
    }
}

impl Server {
    /// Starts a server and waits until it responds. `merge_audio` is the setting of this name of a
    /// started engine; nginx has none.
    ///
    /// # Errors
    /// If it is not installed or did not start.
    pub(crate) async fn start(kind: ServerKind, engine: &Path, merge_audio: bool, attach: AttachArgs) -> Result<Self> {
        match (kind, attach) {
            (ServerKind::Engine, AttachArgs { pid: Some(pid), rtmp: Some(rtmp), http: Some(http) }) => {
                let processes = Processes::tree(pid);
                Ok(Self {
                    kind,
                    processes,
                    publish: rtmp,
                    rtmp,
                    http,
                    token: None,
                    _origin: None,
                    _child: None,
                    _folder: None,
                })
            }
            (ServerKind::Engine, _) => engine::start(engine, merge_audio).await,
            (ServerKind::Edge, _) => engine::start_edge(engine, merge_audio).await,
            (ServerKind::Protected, _) => engine::start_protected(engine).await,
            (ServerKind::Nginx, _) => nginx::start().await,
        }
    }

    /// Path of the HLS playlist of `app/key`.
    pub(crate) fn playlist(&self, app: &str, key: &str) -> String {
        match self.kind {
            ServerKind::Engine | ServerKind::Edge | ServerKind::Protected => {
                format!("/{app}/streams/{key}.m3u8{}", self.query())
            }
            ServerKind::Nginx => format!("/{key}.m3u8"),
        }
    }

    /// Path of the WHEP endpoint of `app/key`.
    pub(crate) fn whep(&self, app: &str, key: &str) -> String {
        format!("/{app}/whep/{key}{}", self.query())
    }

    fn query(&self) -> String {
        self.token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default()
    }

    /// The last lines of the server's log, for error messages.
    pub(crate) fn log(&self) -> String {
        let Some(folder) = &self._folder else { return String::new() };
        let text = std::fs::read_to_string(folder.0.join(LOG)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// True if nginx and its RTMP module are installed.
pub(crate) fn nginx_is_installed() -> bool {
    nginx::is_installed()
}

/// Name of the log file in the server's folder.
const LOG: &str = "server.log";

/// A child process that is killed on drop, with its children.
#[derive(Debug)]
pub(crate) struct KillOnDrop(pub(crate) Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // The children are listed first: once nginx's master has exited, they can
        // no longer be found.
        let tree = Processes::tree(self.0.id() as i32);
        let _ = self.0.kill();
        tree.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder that is removed on drop.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("headwater-load-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("could not create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A loopback address that was free a moment ago, for servers that cannot choose a port themselves.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
