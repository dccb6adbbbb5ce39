//! From a connection string to a client with bounded waits. No part of the string may get into a message.

use std::time::Duration;

use mongodb::Client;
use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadPreference, SelectionCriteria, WriteConcern,
};

use super::link::Known;

/// Why there is no client.
#[derive(Clone)]
pub(super) enum Failure {
    /// What the driver says.
    Driver(Error),
    /// DNS did not answer in time.
    Silent,
}

/// Opens a client; it connects when first used. Waits for DNS if the string names an SRV entry, for nobody else.
pub(super) async fn open(uri: ConnectionString, patience: Duration) -> Result<Known, Failure> {
    // Both TLS libraries are in the tree, so that none is chosen by itself; whoever was first has decided.
    let parsed = tokio::time::timeout(DNS, Box::pin(ClientOptions::parse(uri).into_future())).await;
    let mut options = parsed.map_err(|_| Failure::Silent)?.map_err(Failure::Driver)?;
    options.app_name.get_or_insert_with(|| "headwater".to_owned());
    options.connect_timeout.get_or_insert(patience);
    options.server_selection_timeout.get_or_insert(selection(patience));
    options.max_pool_size.get_or_insert(POOL);
    // A server that is slow to answer is slow in every handshake: they go on side by side.
    options.max_connecting.get_or_insert(POOL);
    options.max_idle_time.get_or_insert(Duration::from_secs(120));
    // A claim that a fail-over could take back would be no claim.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(patience / 2).build());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    let servers = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let name = options.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
    let client = Client::with_options(options).map_err(Failure::Driver)?;
    Ok(Known { database: client.database(&name), servers })
}

/// A set without a primary is told as such before whoever renews a lease has given up, three seconds after asking. The driver looks
/// for one all the time, whether it is asked or not.
pub(super) fn selection(patience: Duration) -> Duration {
    Duration::from_millis(2_500).min(patience / 2)
}

/// The database, unless the connection string names another.
pub(super) const DATABASE: &str = "headwater";
/// Longer than any caller waits, and than a resolver with the usual settings (5 s, two attempts, two records) tries.
const DNS: Duration = Duration::from_secs(30);
/// Connections of one process at most: heartbeats and joins are short.
const POOL: u32 = 8;
