//! The store that the configuration names.
//!
//! Holds no behaviour: every call goes to the store inside.

use std::path::Path;

use headwater_api::StreamName;
use headwater_api::app::AppDocument;
use headwater_api::config::{self, RegistryKind};
use headwater_api::node::{BootEpoch, Heartbeat, Life, NodeDocument, NodeRecord};
use headwater_api::recording::{RecordingDocument, RecordingQuery};
use headwater_api::stream::{Claim, StreamOffer, StreamRecord};
use headwater_api::token::{Grant, TokenDocument};
use headwater_api::user::UserDocument;

use crate::{Embedded, MongoDb, Peers, Registry, RegistryError, Source, Timing, Wish};

/// A registry of the kind that was configured. Cheap to clone; the last clone dropped closes it.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file of this node.
    Embedded(Embedded),
    /// MongoDB, shared by the nodes of a cluster.
    MongoDb(Source),
}

impl Store {
    /// Opens the registry that the configuration names; `data_dir` must exist.
    ///
    /// # Errors
    /// If a setting is wrong or the file cannot be used. A database that is away is no error here: calls say so.
    pub async fn open(config: &config::Registry, data_dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(config, data_dir, Timing::default()).await
    }

    /// [`Store::open`] with leases of another length, for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(config: &config::Registry, data_dir: &Path, timing: Timing) -> Result<Self, RegistryError> {
        match config.kind {
            RegistryKind::Embedded => Ok(Self::Embedded(Embedded::open_with(data_dir, timing)?)),
            RegistryKind::MongoDb => {
                let file = config.uri_file.as_deref().ok_or_else(|| RegistryError::Setting {
                    reason: "registry.kind is \"mongodb\", and registry.uri_file does not say how to reach it"
                        .to_owned(),
                    source: None,
                })?;
                Ok(Self::MongoDb(Source::open(file, timing).await?))
            }
        }
    }
}

impl From<MongoDb> for Store {
    fn from(database: MongoDb) -> Self {
        Self::MongoDb(database.into())
    }
}

/// Hands each call to the store inside; to a database that has moved meanwhile, once more.
macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $output:ty;)*) => {
        impl Registry for Store {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$output, RegistryError> {
                match self {
                    Self::Embedded(registry) => registry.$name($($arg),*).await,
                    Self::MongoDb(source) => {
                        let used = source.newest();
                        let done = used.$name($($arg),*).await;
                        match source.heed(used, &done).await {
                            Some(newer) => newer.$name($($arg),*).await,
                            None => done,
                        }
                    }
                }
            })*
        }
    };
}

delegate! {
    register(node: &NodeDocument, resumes: Option<BootEpoch>) -> Life;
    heartbeat(life: &Life, heartbeat: &Heartbeat) -> Wish;
    nodes() -> Vec<NodeRecord>;
    peers(which: Peers<'_>) -> Vec<NodeRecord>;
    node(id: &str) -> Option<NodeRecord>;
    remove_node(id: &str) -> bool;
    ask_to_drain(life: &Life) -> bool;
    leave(life: &Life) -> bool;
    claim(owner: &Life, name: &StreamName, offer: &StreamOffer, resumes: Option<u64>) -> Claim;
    renew(owner: &Life, held: &[Claim]) -> Vec<StreamName>;
    release(claim: &Claim) -> bool;
    release_all(owner: &Life) -> u64;
    stream(name: &StreamName) -> Option<StreamRecord>;
    streams() -> Vec<StreamRecord>;
    apps() -> Vec<AppDocument>;
    put_app(app: &AppDocument) -> ();
    remove_app(name: &str) -> bool;
    put_recording(recording: &RecordingDocument) -> ();
    recording(id: &str) -> Option<RecordingDocument>;
    recordings(query: &RecordingQuery) -> Vec<RecordingDocument>;
    remove_recording(id: &str) -> bool;
    create_user(user: &UserDocument) -> ();
    put_user(user: &UserDocument) -> ();
    user(name: &str) -> Option<UserDocument>;
    users() -> Vec<UserDocument>;
    remove_user(name: &str) -> bool;
    create_token(token: &TokenDocument) -> ();
    consume_token(digest: &str, stream: &StreamName, grants: Grant) -> bool;
    probe() -> u64;
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    async fn refusal(uri_file: Option<PathBuf>) -> String {
        let config = config::Registry { kind: RegistryKind::MongoDb, uri_file };
        let error = Store::open(&config, Path::new("/nonexistent")).await.unwrap_err();
        assert!(matches!(error, RegistryError::Setting { .. }) && !error.is_retryable(), "{error:?}");
        headwater_api::error::Chain(&error).to_string()
    }

    #[tokio::test]
    async fn mongodb_without_a_readable_connection_string_is_a_setting_to_change() {
        assert!(refusal(None).await.contains("registry.uri_file"));
        assert!(
            refusal(Some("/nonexistent/uri".into()))
                .await
                .contains("/nonexistent/uri holds no connection string: No such file")
        );
        let empty = std::env::temp_dir().join(format!("headwater-registry-uri-{}", std::process::id()));
        std::fs::write(&empty, "\n").unwrap();
        assert!(refusal(Some(empty.clone())).await.ends_with("holds no connection string"));
        std::fs::remove_file(&empty).unwrap();
    }
}
