//! The client of a connection string. For a string that names hosts, the client is created at once.
//! For one that names an SRV record (`mongodb+srv://`), it is created when DNS has returned the
//! servers, which may be late, or never.
//!
//! ```text
//!   Unresolved --(a call)--> InProgress --(SRV, TXT)--> Resolved, final
//!       ^                        |
//!       '------(a call)------- Failed: returned to all calls within the next second
//! ```
//!
//! A call waits a limited time; the lookup continues without it, so that a resolver that is slower
//! than every caller succeeds in the end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::options::{ConnectionString, HostInfo};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connect::{self, ConnectError, ResolvedDatabase};
use super::failure;
use crate::RegistryError;

/// How long a call waits for DNS. Shorter than the two seconds that the engine allows for a claim,
/// so that the caller gets the reason.
const RESOLVE_WAIT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Minimum interval between two failing lookups: viewers may cause any number of calls.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A database that is resolved when it is first used. Clones share it.
#[derive(Clone)]
pub(super) struct LazyDatabase(Arc<Inner>);

struct Inner {
    uri: Secret,
    parsed: ConnectionString,
    /// For messages, until the servers are known.
    name: String,
    call_timeout: Duration,
    resolved: OnceLock<ResolvedDatabase>,
    resolution_tx: watch::Sender<Resolution>,
    /// The runtime of the lookup and of the driver's own tasks, independent of the caller's.
    runtime: Handle,
}

/// State of the DNS lookup.
enum Resolution {
    Unresolved,
    InProgress,
    Failed(ConnectError, Instant),
    Resolved,
}

impl LazyDatabase {
    /// Parses a connection string. Sends nothing.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if the string is invalid.
    pub(super) async fn open(uri: &Secret, call_timeout: Duration) -> Result<Self, RegistryError> {
        let parsed = ConnectionString::parse(uri.reveal().trim()).map_err(|e| failure::invalid_uri(uri, e))?;
        let (name, needs_dns) = match &parsed.host_info {
            HostInfo::DnsRecord(host) => (format!("{host} (SRV)"), true),
            _ => (String::new(), false),
        };
        let this = Self(Arc::new(Inner {
            uri: uri.clone(),
            parsed,
            name,
            call_timeout,
            resolved: OnceLock::new(),
            resolution_tx: watch::Sender::new(Resolution::Unresolved),
            runtime: Handle::current(),
        }));
        if !needs_dns {
            // Only interprets the string.
            let resolved = connect::open(this.0.parsed.clone(), call_timeout).await;
            let _ = this.0.resolved.set(resolved.map_err(|e| this.resolution_error("", e))?);
        }
        Ok(this)
    }

    /// The database. Waits a limited time for DNS if the servers are unknown.
    pub(super) async fn resolve(&self, attempted: &str) -> Result<&ResolvedDatabase, RegistryError> {
        if let Some(resolved) = self.0.resolved.get() {
            return Ok(resolved);
        }
        let mut resolution_rx = self.start_resolution();
        let timeout = connect::server_selection_timeout(self.0.call_timeout).min(RESOLVE_WAIT_TIMEOUT);
        let ended = resolution_rx.wait_for(|state| !matches!(state, Resolution::InProgress));
        let outcome = match tokio::time::timeout(timeout, ended).await {
            Ok(Ok(state)) => match &*state {
                Resolution::Failed(error, _) => Err(self.resolution_error(attempted, error.clone())),
                _ => Ok(()),
            },
            // Not reached: `self` owns the sender.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(self.resolution_error(attempted, ConnectError::DnsTimeout)),
        };
        outcome?;
        self.0.resolved.get().ok_or_else(|| self.resolution_error(attempted, ConnectError::DnsTimeout))
    }

    /// The servers, or the SRV name, for messages.
    pub(super) fn servers(&self) -> &str {
        self.0.resolved.get().map_or(&self.0.name, |resolved| &resolved.servers)
    }

    fn resolution_error(&self, attempted: &str, error: ConnectError) -> RegistryError {
        match error {
            ConnectError::Driver(e) => failure::resolution_failed(attempted, self.servers(), &self.0.uri, e),
            ConnectError::DnsTimeout => failure::dns_timed_out(attempted, self.servers()),
        }
    }

    /// Starts a lookup, unless one is in progress or has failed within the last second.
    fn start_resolution(&self) -> watch::Receiver<Resolution> {
        let starts = self.0.resolution_tx.send_if_modified(|state| {
            let starts = match state {
                Resolution::Unresolved => true,
                Resolution::Failed(_, at) => at.elapsed() >= RETRY_INTERVAL,
                Resolution::InProgress | Resolution::Resolved => false,
            };
            if starts {
                *state = Resolution::InProgress;
            }
            starts
        });
        if starts {
            let this = self.clone();
            self.0.runtime.spawn(async move {
                let state = match connect::open(this.0.parsed.clone(), this.0.call_timeout).await {
                    Ok(resolved) => {
                        let _ = this.0.resolved.set(resolved);
                        Resolution::Resolved
                    }
                    Err(e) => Resolution::Failed(e, Instant::now()),
                };
                this.0.resolution_tx.send_replace(state);
            });
        }
        self.0.resolution_tx.subscribe()
    }
}
