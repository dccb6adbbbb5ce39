//! From a connection string to a client with bounded waits. No part of the string may get into a message.

use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::options::{Acknowledgment, ClientOptions, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Database};

use super::failure;
use crate::RegistryError;

/// Opens a client; it connects when first used. Gives the registry's database, and the servers' names for messages.
pub(super) async fn open(uri: &Secret, patience: Duration) -> Result<(Database, String), RegistryError> {
    // Both TLS libraries are in the tree, so that none is chosen by itself; whoever was first has decided.
    let parsed =
        tokio::time::timeout(patience, Box::pin(ClientOptions::parse(uri.reveal().trim()).into_future())).await;
    let mut options = match parsed {
        Ok(Ok(options)) => options,
        Ok(Err(e)) => return Err(failure::bad_uri(uri, e)),
        Err(_) => return Err(failure::silent("resolve the servers of the connection string", "(SRV)", patience)),
    };
    options.app_name.get_or_insert_with(|| "headwater".to_owned());
    options.connect_timeout.get_or_insert(patience);
    options.server_selection_timeout.get_or_insert(SELECTION.min(patience / 2));
    options.max_pool_size.get_or_insert(POOL);
    // A server that is slow to answer is slow in every handshake: they go on side by side.
    options.max_connecting.get_or_insert(POOL);
    options.max_idle_time.get_or_insert(Duration::from_secs(120));
    // A claim that a fail-over could take back would be no claim.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(patience / 2).build());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    let servers = options.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let name = options.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
    let client = Client::with_options(options).map_err(|e| failure::bad_uri(uri, e))?;
    Ok((client.database(&name), servers))
}

/// The database, unless the connection string names another.
pub(super) const DATABASE: &str = "headwater";
/// A set without a primary is told as such before whoever renews a lease has given up, three seconds after asking. The driver looks
/// for one all the time, whether it is asked or not.
const SELECTION: Duration = Duration::from_millis(2_500);
/// Connections of one process at most: heartbeats and joins are short.
const POOL: u32 = 8;
