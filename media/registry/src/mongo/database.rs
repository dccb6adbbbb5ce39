//! The handle of a registry in MongoDB, and the bounds of its calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::Collection;
use mongodb::bson::Document;
use tokio::sync::OnceCell;

use super::lazy_database::LazyDatabase;
use super::{failure, schema};
use crate::{RegistryError, Timing};

/// Longer than the two seconds that a struggling database may take for each of the four answers to
/// a new connection and its first call; shorter than a lease.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry in MongoDB. Cheap to clone; dropping the last clone closes its connections.
#[derive(Clone)]
pub struct MongoDb(Arc<Inner>);

struct Inner {
    database: LazyDatabase,
    timing: Timing,
    call_timeout: Duration,
    prepared: OnceCell<()>,
}

impl std::fmt::Debug for MongoDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MongoDb({})", self.servers())
    }
}

impl MongoDb {
    /// Parses a connection string, `mongodb://` or `mongodb+srv://`. The first call connects, and
    /// resolves an SRV name. The registry is the string's database, `headwater` if it names none.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if the string is invalid.
    pub async fn open(uri: &Secret, timing: Timing) -> Result<Self, RegistryError> {
        Self::open_with_timeout(uri, timing, CALL_TIMEOUT).await
    }

    /// [`MongoDb::open`] with another timeout for every call.
    pub(super) async fn open_with_timeout(
        uri: &Secret,
        timing: Timing,
        call_timeout: Duration,
    ) -> Result<Self, RegistryError> {
        let database = LazyDatabase::open(uri, call_timeout).await?;
        Ok(Self(Arc::new(Inner { database, timing, call_timeout, prepared: OnceCell::new() })))
    }

    /// A collection. The first call creates the schema. `attempted` completes "could not …".
    pub(super) async fn collection(&self, name: &str, attempted: &str) -> Result<Collection<Document>, RegistryError> {
        let database = self.driver_database(attempted).await?;
        let collection = database.collection(name);
        if !self.0.prepared.initialized() {
            let prepare = self.0.prepared.get_or_try_init(|| schema::prepare(database));
            self.attempt(attempted, async { prepare.await.map(drop) }).await?;
        }
        Ok(collection)
    }

    pub(super) async fn driver_database(&self, attempted: &str) -> Result<&mongodb::Database, RegistryError> {
        Ok(&self.0.database.resolve(attempted).await?.database)
    }

    /// Host and port of the servers, or the SRV name that they are looked up by, for messages.
    pub(super) fn servers(&self) -> &str {
        self.0.database.servers()
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.0.timing
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Awaits a call to the database, bounded by the call timeout. `attempted` completes
    /// "could not …".
    pub(super) async fn attempt<T>(
        &self,
        attempted: &str,
        call: impl Future<Output = mongodb::error::Result<T>> + Send,
    ) -> Result<T, RegistryError> {
        // The driver's futures have tens of kilobytes; boxed, they do not enlarge the callers'.
        match tokio::time::timeout(self.0.call_timeout, Box::pin(call)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(self.call_failed(attempted, e)),
            Err(_) => Err(failure::call_timed_out(attempted, self.servers(), self.0.call_timeout)),
        }
    }

    /// The registry's error for a driver error.
    pub(super) fn call_failed(&self, attempted: &str, error: mongodb::error::Error) -> RegistryError {
        failure::call_failed(attempted, self.servers(), error)
    }
}
