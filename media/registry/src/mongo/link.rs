//! The client of a connection string. One that names hosts is made at once; one that names a DNS entry (`mongodb+srv://`) when DNS has
//! said where the servers are, which may be late, or never.
//!
//! ```text
//!   unknown --(a call)--> asking --(SRV, TXT)--> known, for good
//!      ^                    |
//!      '----(a call)---- failed: told to all who call within the next second
//! ```
//!
//! Who calls waits a moment; the question goes on without them, so that a DNS that is slower than every caller is heard in the end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::Database;
use mongodb::options::{ConnectionString, HostInfo};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{connect, failure};
use crate::RegistryError;

/// A way to the database. Clones share it.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    uri: Secret,
    parsed: ConnectionString,
    /// For messages, until its servers are known.
    name: String,
    patience: Duration,
    known: OnceLock<Known>,
    asking: watch::Sender<Asking>,
    /// Where the question and the driver's own tasks run, whoever calls first.
    runtime: Handle,
}

/// What a connection string has led to.
pub(super) struct Known {
    pub(super) database: Database,
    /// Host and port of the servers, for messages.
    pub(super) servers: String,
}

enum Asking {
    Unknown,
    Now,
    Failed(connect::Failure, Instant),
    Known,
}

impl Link {
    /// Reads a connection string. Asks nobody.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if it is no good.
    pub(super) async fn open(uri: &Secret, patience: Duration) -> Result<Self, RegistryError> {
        let parsed = ConnectionString::parse(uri.reveal().trim()).map_err(|e| failure::bad_uri(uri, e))?;
        let (name, must_ask) = match &parsed.host_info {
            HostInfo::DnsRecord(host) => (format!("{host} (SRV)"), true),
            _ => (String::new(), false),
        };
        let link = Self(Arc::new(Inner {
            uri: uri.clone(),
            parsed,
            name,
            patience,
            known: OnceLock::new(),
            asking: watch::Sender::new(Asking::Unknown),
            runtime: Handle::current(),
        }));
        if !must_ask {
            // Nothing but the string is looked at.
            let known = connect::open(link.0.parsed.clone(), patience).await.map_err(|e| link.failed("", e))?;
            let _ = link.0.known.set(known);
        }
        Ok(link)
    }

    /// The database; waits a moment for DNS if that has not yet said where it is.
    pub(super) async fn known(&self, attempted: &str) -> Result<&Known, RegistryError> {
        if let Some(known) = self.0.known.get() {
            return Ok(known);
        }
        let mut asking = self.ask();
        let wait = connect::selection(self.0.patience).min(WAIT);
        let outcome = match tokio::time::timeout(wait, asking.wait_for(|a| !matches!(a, Asking::Now))).await {
            Ok(Ok(asking)) => match &*asking {
                Asking::Failed(why, _) => Err(self.failed(attempted, why.clone())),
                _ => Ok(()),
            },
            // The sender lives as long as this one.
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(self.failed(attempted, connect::Failure::Silent)),
        };
        outcome?;
        self.0.known.get().ok_or_else(|| self.failed(attempted, connect::Failure::Silent))
    }

    /// For messages.
    pub(super) fn servers(&self) -> &str {
        self.0.known.get().map_or(&self.0.name, |known| &known.servers)
    }

    fn failed(&self, attempted: &str, why: connect::Failure) -> RegistryError {
        match why {
            connect::Failure::Driver(e) => failure::unresolved(attempted, self.servers(), &self.0.uri, e),
            connect::Failure::Silent => failure::dns_silent(attempted, self.servers()),
        }
    }

    /// Asks DNS, unless somebody does already or has been told just now that it is of no use.
    fn ask(&self) -> watch::Receiver<Asking> {
        let begins = self.0.asking.send_if_modified(|asking| {
            let begins = match asking {
                Asking::Unknown => true,
                Asking::Failed(_, at) => at.elapsed() >= PAUSE,
                Asking::Now | Asking::Known => false,
            };
            if begins {
                *asking = Asking::Now;
            }
            begins
        });
        if begins {
            let link = self.clone();
            self.0.runtime.spawn(async move {
                let said = match connect::open(link.0.parsed.clone(), link.0.patience).await {
                    Ok(known) => {
                        let _ = link.0.known.set(known);
                        Asking::Known
                    }
                    Err(e) => Asking::Failed(e, Instant::now()),
                };
                link.0.asking.send_replace(said);
            });
        }
        self.0.asking.subscribe()
    }
}

/// Less than the two seconds that the engine gives a claim: that DNS is silent is told by who knows it.
const WAIT: Duration = Duration::from_millis(1_500);
/// Between two questions that fail: viewers may cause any number of calls.
const PAUSE: Duration = Duration::from_secs(1);
