//! Engines that start with given apps and tokens: one alone, or one that has the streams and one
//! that relays them.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;

use headwater_api::documents::{AppDocument, TokenDocument};
use headwater_registry::{Apps as _, Embedded, Tokens as _};
use headwater_tests::engine::{Engine, Options};
use headwater_tests::temp::TempDir;
use tokio::runtime::Runtime;

use super::protocol::Addresses;
use super::tls_forwarder::TlsForwarder;

/// The secret from which all nodes derive the keys of play sessions and media addresses.
const CLUSTER_SECRET: &str = "the secret of this test's cluster\n";
/// Address of the clients of RTMPS.
const RTMPS_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 100);

/// What the registry of every node contains at the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub(crate) apps: Vec<AppDocument>,
    pub(crate) tokens: Vec<TokenDocument>,
    /// Digests of those tokens that are revoked.
    pub(crate) revoked: Vec<String>,
}

/// A running engine with RTMPS.
pub(crate) struct Node {
    engine: Engine,
    at: Addresses,
    rtmps: SocketAddr,
    _forwarder: TlsForwarder,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Deref for Node {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Node {
    /// Starts a node that requests streams it does not have from `origins`.
    pub(crate) fn start(contents: &Contents, origins: &[SocketAddr]) -> Self {
        Self::start_with(contents, origins, Options::default())
    }

    /// Like [`Node::start`], with other options.
    pub(crate) fn start_with(contents: &Contents, origins: &[SocketAddr], mut options: Options) -> Self {
        let folder = TempDir::new().unwrap();
        let data_dir = folder.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(store(contents, &Embedded::open(&data_dir).unwrap()));
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = &mut options.config;
        config.node.data_dir = data_dir;
        config.tls.certificate_file = Some(folder.write("certificate.pem", pair.cert.pem()).unwrap());
        config.tls.key_file = Some(folder.write("key.pem", pair.signing_key.serialize_pem()).unwrap());
        config.relay.listen = "127.0.0.1:0".parse().unwrap();
        config.relay.secret_file = Some(folder.write("cluster-secret", CLUSTER_SECRET).unwrap());
        config.relay.origins = origins.to_vec();
        let engine = Engine::start(options).unwrap();
        let rtmps = engine.endpoints().rtmps.unwrap();
        let forwarder = TlsForwarder::start(runtime.handle(), rtmps, pair.cert.der().clone(), RTMPS_CLIENT);
        let at = Addresses { rtmps: Some(forwarder.address()), ..Addresses::of(engine.endpoints()) };
        Self { engine, at, rtmps, _forwarder: forwarder, _runtime: runtime, _folder: folder }
    }

    /// Starts a node that has streams, and one that relays them.
    pub(crate) fn start_pair(contents: &Contents) -> [(&'static str, Self); 2] {
        let origin = Self::start(contents, &[]);
        let edge = Self::start(contents, &[origin.endpoints().relay.unwrap()]);
        [("origin", origin), ("edge", edge)]
    }

    /// Where it serves.
    pub(crate) fn at(&self) -> &Addresses {
        &self.at
    }

    /// `rtmps://127.0.0.1:PORT/APP/STREAM_ID`.
    pub(crate) fn rtmps_url(&self, name: &str) -> String {
        format!("rtmps://{}/{name}", self.rtmps)
    }

    /// Checks that nothing panicked, and that neither log nor metrics contain one of these secrets.
    pub(crate) fn check_clean(&self, secrets: &[&str]) {
        assert_eq!(self.panics(), [""; 0]);
        let metrics = self.at.metrics();
        for line in self.process().lines().iter().map(String::as_str).chain(metrics.lines()) {
            assert!(!secrets.iter().any(|secret| line.contains(secret)), "{line}");
        }
    }
}

async fn store(contents: &Contents, registry: &Embedded) {
    let stored = registry.apps().await.unwrap();
    for app in &contents.apps {
        let revision = stored.iter().find(|known| known.name == app.name).map_or(0, |known| known.revision);
        registry.put_app(&AppDocument { revision, ..app.clone() }).await.unwrap();
    }
    for token in &contents.tokens {
        registry.create_token(token).await.unwrap();
    }
    for digest in &contents.revoked {
        assert!(registry.revoke_token(digest).await.unwrap());
    }
}
