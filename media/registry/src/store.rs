//! The backend that the configuration names.
//!
//! It passes every call to the backend, and adds one thing: a MongoDB whose connection string has
//! changed is opened again, and the call is repeated once.

use std::path::Path;

use headwater_api::StreamName;
use headwater_api::config::{self, RegistryKind};
use headwater_api::documents::{
    AppDocument, BootEpoch, Claim, Grant, Heartbeat, NodeDocument, NodeIncarnation, NodeRecord, Revocations,
    StreamOffer, StreamRecord, TokenDocument, UserDocument,
};

use crate::{
    Accounts, Apps, DesiredState, Embedded, MongoDb, Nodes, Peers, Registry, RegistryError, ReloadableMongoDb, Streams,
    Timing, TokenQuery, TokenUse, Tokens,
};

/// A registry of the configured kind. Cheap to clone; dropping the last clone closes it.
#[derive(Debug, Clone)]
pub enum Store {
    /// A file of this node.
    Embedded(Embedded),
    /// MongoDB, shared by the nodes of a cluster.
    MongoDb(ReloadableMongoDb),
}

impl Store {
    /// Opens the registry that the configuration names; `data_dir` must exist.
    ///
    /// # Errors
    /// If a setting is wrong or the file cannot be used. An unreachable database is not an error
    /// here; calls report it.
    pub async fn open(config: &config::Registry, data_dir: &Path) -> Result<Self, RegistryError> {
        Self::open_with(config, data_dir, Timing::default()).await
    }

    /// [`Store::open`] with other lease durations, for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(config: &config::Registry, data_dir: &Path, timing: Timing) -> Result<Self, RegistryError> {
        match config.kind {
            RegistryKind::Embedded => Ok(Self::Embedded(Embedded::open_with(data_dir, timing)?)),
            RegistryKind::MongoDb => {
                let file = config.uri_file.as_deref().ok_or_else(|| RegistryError::Setting {
                    reason: "registry.kind is \"mongodb\", but registry.uri_file is not set".to_owned(),
                    source: None,
                })?;
                Ok(Self::MongoDb(ReloadableMongoDb::open(file, timing).await?))
            }
        }
    }
}

impl From<MongoDb> for Store {
    fn from(database: MongoDb) -> Self {
        Self::MongoDb(database.into())
    }
}

/// Implements a trait by passing each call to the backend.
macro_rules! delegate {
    ($subject:ident: $($name:ident($($arg:ident: $type:ty),*) -> $output:ty;)*) => {
        impl $subject for Store {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$output, RegistryError> {
                match self {
                    Self::Embedded(registry) => registry.$name($($arg),*).await,
                    Self::MongoDb(mongodb) => {
                        let used = mongodb.current();
                        let outcome = used.$name($($arg),*).await;
                        match mongodb.reopen_if_changed(used, &outcome).await {
                            Some(reopened) => reopened.$name($($arg),*).await,
                            None => outcome,
                        }
                    }
                }
            })*
        }
    };
}

delegate! { Nodes:
    register(node: &NodeDocument, resumes: Option<BootEpoch>) -> NodeIncarnation;
    heartbeat(incarnation: &NodeIncarnation, heartbeat: &Heartbeat) -> DesiredState;
    nodes() -> Vec<NodeRecord>;
    peers(which: Peers<'_>) -> Vec<NodeRecord>;
    node(id: &str) -> Option<NodeRecord>;
    remove_node(id: &str) -> bool;
    request_drain(incarnation: &NodeIncarnation) -> bool;
    deregister(incarnation: &NodeIncarnation) -> bool;
}

delegate! { Streams:
    claim(owner: &NodeIncarnation, name: &StreamName, offer: &StreamOffer, resumes: Option<u64>) -> Claim;
    renew(owner: &NodeIncarnation, held: &[Claim]) -> Vec<StreamName>;
    release(claim: &Claim) -> bool;
    release_all(owner: &NodeIncarnation) -> u64;
    stream(name: &StreamName) -> Option<StreamRecord>;
    streams() -> Vec<StreamRecord>;
}

delegate! { Accounts:
    create_user(user: &UserDocument) -> ();
    put_user(user: &UserDocument) -> ();
    user(name: &str) -> Option<UserDocument>;
    users() -> Vec<UserDocument>;
    end_session(user: &str, session: &str) -> bool;
    remove_user(name: &str) -> bool;
}

delegate! { Apps:
    apps() -> Vec<AppDocument>;
    put_app(app: &AppDocument) -> AppDocument;
    remove_app(name: &str) -> bool;
}

delegate! { Tokens:
    create_token(token: &TokenDocument) -> ();
    consume_token(digest: &str, stream: &StreamName, grants: Grant) -> TokenUse;
    check_token(digest: &str, stream: &StreamName, grants: Grant) -> TokenUse;
    token(digest: &str) -> Option<TokenDocument>;
    tokens(query: TokenQuery<'_>) -> Vec<TokenDocument>;
    revoke_token(digest: &str) -> bool;
    revoke_tokens(app: &str, stream_id: Option<&str>) -> u64;
    revocations(since_ms: u64) -> Revocations;
}

delegate! { Registry:
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
    async fn mongodb_without_a_readable_connection_string_is_a_setting_error() {
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
