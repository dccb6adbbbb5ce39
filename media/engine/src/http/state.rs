//! What the HTTP handlers work with.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use headwater_api::endpoints::Endpoints;
use headwater_registry::Store;

use super::Accounts;
use crate::admission::Admission;
use crate::apps::Apps;
use crate::cluster::View;
use crate::gateway::hls::Hls;
use crate::gateway::webrtc::Whep;
use crate::hub::Hub;

/// A handle to everything a handler may use; clones share it.
#[derive(Debug, Clone)]
pub struct State(Arc<Parts>);

/// The rooms behind the HTTP server.
#[derive(Debug)]
pub struct Parts {
    /// Live streams.
    pub hub: Hub,
    /// Which apps exist.
    pub apps: Apps,
    /// Who may change something.
    pub accounts: Accounts,
    /// The other nodes.
    pub view: View<Store>,
    /// This node's name.
    pub node_id: String,
    /// Where it listens.
    pub endpoints: Endpoints,
    /// WebRTC viewers.
    pub whep: Whep,
    /// HLS and LL-HLS.
    pub hls: Hls,
    /// Who is let in.
    pub door: Admission,
    /// The other nodes, in a cluster.
    pub others: Option<Arc<dyn Others>>,
}

/// What is known of the other nodes of the cluster.
pub trait Others: std::fmt::Debug + Send + Sync {
    /// True if the node of this id takes its leave or is gone, as far as is known. Ends within a few seconds.
    fn is_leaving(&self, node: &str) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl State {
    /// Joins the rooms.
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
