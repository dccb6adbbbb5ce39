//! The state that HTTP handlers share.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use headwater_api::endpoints::Endpoints;
use headwater_registry::Store;

use super::Accounts;
use crate::access::apps::Apps;
use crate::cluster::View;
use crate::gateway::hls::Hls;
use crate::gateway::webrtc::Whep;
use crate::hub::Hub;
use crate::node::admission::Admission;

/// A handle to the services of the engine; clones share it.
#[derive(Debug, Clone)]
pub struct State(Arc<Parts>);

/// The services that HTTP handlers use.
#[derive(Debug)]
pub struct Parts {
    /// Live streams.
    pub hub: Hub,
    /// The existing apps.
    pub apps: Apps,
    /// Users and sessions.
    pub accounts: Accounts,
    /// Nodes and streams of the cluster.
    pub view: View<Store>,
    /// Id of this node.
    pub node_id: String,
    /// Addresses of the engine's listeners.
    pub endpoints: Endpoints,
    /// WebRTC viewers.
    pub whep: Whep,
    /// HLS packagers and viewers.
    pub hls: Hls,
    /// Admission of new viewers.
    pub door: Admission,
    /// The state of peers; `None` outside a cluster.
    pub others: Option<Arc<dyn Others>>,
}

/// The state of the other nodes of the cluster.
pub trait Others: std::fmt::Debug + Send + Sync {
    /// True if the node with this id is draining, dead or removed, as far as is known. Completes
    /// within a few seconds.
    fn is_leaving(&self, node: &str) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl State {
    /// Shares `services` among all handlers.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
