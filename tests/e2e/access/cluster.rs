//! A cluster with a database, an origin and an edge, whose apps and tokens are set with the
//! commands of the administrator.

use headwater_api::documents::Grant;
use headwater_tests::cluster::{self, Node};
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::publish::{self, Source};
use headwater_tests::wait;

use super::protocol::{Addresses, Protocol};
use crate::apps;

/// The nodes. Killed on drop.
pub(super) struct Cluster {
    pub(super) origin: Node,
    pub(super) edge: Node,
    _aws: Moto,
}

impl Cluster {
    /// Starts both nodes with this registry. Returns `None` if a tool is missing.
    pub(super) fn start(registry_uri: &str) -> Option<Self> {
        let aws = cluster::start_aws(registry_uri).unwrap()?;
        let origin = Node::start(&aws, "i-0origin", "origin").unwrap();
        let edge = Node::start(&aws, "i-0edge", "edge").unwrap();
        origin.wait_ready().unwrap();
        edge.wait_ready().unwrap();
        Some(Self { origin, edge, _aws: aws })
    }

    /// Both nodes.
    pub(super) fn nodes(&self) -> [(&'static str, &Node); 2] {
        [("origin", &self.origin), ("edge", &self.edge)]
    }

    /// Waits until both nodes require a token of the viewers of `app`.
    pub(super) fn wait_protected(&self, app: &str) {
        for (name, node) in self.nodes() {
            wait::until(&format!("the policy of {app} on the {name}"), || {
                let refusal = Protocol::Hls.attempt(&addresses(node), app, "a", None).err()?;
                refusal.contains("token_missing").then_some(())
            })
            .unwrap();
        }
    }
}

/// Where a node serves.
pub(super) fn addresses(node: &Node) -> Addresses {
    Addresses::of(&node.daemon.wait_endpoints(None).unwrap())
}

/// Makes a token for all streams of an app; `kind` is `jwt` or `one-time`.
pub(super) fn make_token(node: &Node, app: &str, action: Grant, kind: &str) -> String {
    apps::run(&node.daemon, &["token", "make", app, action.as_str(), "--kind", kind]).trim().to_owned()
}

/// Starts ffmpeg to publish `name` with a token. Returns `None` if it is not installed.
pub(super) fn publish(node: &Node, name: &str, token: &str) -> Option<Process> {
    let url = format!("rtmp://{}/{name}?token={token}", addresses(node).rtmp);
    let publisher = publish::start_ffmpeg(&Source::default(), &url).unwrap()?;
    node.wait_live(name).unwrap();
    Some(publisher)
}
