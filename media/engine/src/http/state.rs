//! The state that HTTP handlers share.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use headwater_api::control::Endpoints;
use headwater_registry::{Registry, Store};

use super::auth::Accounts;
use crate::access::Access;
use crate::cluster::{Cluster, ClusterSnapshotCache};
use crate::gateway::hls::Hls;
use crate::gateway::webrtc::Whep;
use crate::hub::Hub;
use crate::node::admission::Admission;

/// A handle to the services of the engine; clones share it.
#[derive(Debug, Clone)]
pub struct AppState(Arc<AppServices>);

/// The services that HTTP handlers use.
#[derive(Debug)]
pub struct AppServices {
    /// Live streams.
    pub hub: Hub,
    /// Who may use an app or a stream.
    pub access: Access,
    /// Users and sessions.
    pub accounts: Accounts,
    /// Apps and tokens.
    pub registry: Store,
    /// Nodes and streams of the cluster.
    pub snapshots: ClusterSnapshotCache<Store>,
    /// Id of this node.
    pub node_id: String,
    /// Addresses of the engine's listeners.
    pub endpoints: Endpoints,
    /// WebRTC viewers.
    pub whep: Whep,
    /// HLS packagers and viewers.
    pub hls: Hls,
    /// Admission of new viewers.
    pub admission: Admission,
    /// The state of peers; `None` outside a cluster.
    pub peers: Option<Arc<dyn PeerStatus>>,
}

/// The state of the other nodes of the cluster.
pub trait PeerStatus: std::fmt::Debug + Send + Sync {
    /// True if the node with this id is draining, dead or removed, as far as is known. Completes
    /// within a few seconds.
    fn is_leaving(&self, node: &str) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl<R: Registry + std::fmt::Debug + 'static> PeerStatus for Cluster<R> {
    fn is_leaving(&self, node: &str) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let node = node.to_owned();
        Box::pin(async move { Self::is_unavailable(self, &node).await })
    }
}

impl AppState {
    /// Shares `services` among all handlers.
    pub fn new(services: AppServices) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for AppState {
    type Target = AppServices;

    fn deref(&self) -> &AppServices {
        &self.0
    }
}
