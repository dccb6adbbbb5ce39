//! From a connection string to a client with bounded waits. No part of the string may appear in a
//! message.

use std::time::Duration;

use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Database};

/// The database, unless the connection string names another.
pub(super) const DEFAULT_DATABASE: &str = "headwater";
/// Longer than any caller waits, and longer than a resolver with the usual settings tries (5 s, two
/// attempts, two records).
const DNS_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of connections of one process: heartbeats and stream lookups are short.
const MAX_POOL_SIZE: u32 = 8;

/// A client whose servers are known.
pub(super) struct ResolvedDatabase {
    pub(super) database: Database,
    /// Host and port of the servers, for messages.
    pub(super) servers: String,
}

/// Why there is no client.
#[derive(Clone)]
pub(super) enum ConnectError {
    /// The driver's error.
    Driver(Error),
    /// DNS did not answer in time.
    DnsTimeout,
}

/// Creates a client, which connects when it is first used. Waits only for DNS, and only if the
/// string contains an SRV name.
pub(super) async fn open(uri: ConnectionString, call_timeout: Duration) -> Result<ResolvedDatabase, ConnectError> {
    let parsed = tokio::time::timeout(DNS_TIMEOUT, Box::pin(ClientOptions::parse(uri).into_future())).await;
    let mut options = parsed.map_err(|_| ConnectError::DnsTimeout)?.map_err(ConnectError::Driver)?;
    options.app_name.get_or_insert_with(|| "headwater".to_owned());
    options.connect_timeout.get_or_insert(call_timeout);
    options.server_selection_timeout.get_or_insert(server_selection_timeout(call_timeout));
    options.max_pool_size.get_or_insert(MAX_POOL_SIZE);
    // A server that answers slowly is slow in every handshake: handshakes run concurrently.
    options.max_connecting.get_or_insert(MAX_POOL_SIZE);
    options.max_idle_time.get_or_insert(Duration::from_secs(120));
    // A claim that a failover can roll back is no claim.
    options.write_concern =
        Some(WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(call_timeout / 2).build());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    let servers = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let name = options.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    let client = Client::with_options(options).map_err(ConnectError::Driver)?;
    Ok(ResolvedDatabase { database: client.database(&name), servers })
}

/// How long a call waits for a primary. Shorter than the three seconds after which a renewal of a
/// lease is given up, so that the caller gets the reason. The driver monitors the set continuously,
/// not only during calls.
pub(super) fn server_selection_timeout(call_timeout: Duration) -> Duration {
    Duration::from_millis(2_500).min(call_timeout / 2)
}
