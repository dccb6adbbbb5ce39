//! A node for tests of the web server, without sockets: two apps and an embedded registry.
//! Requests reach it through the connection code, from a peer of the test's choice.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use headwater_api::Config;
use headwater_api::control::Endpoints;
use headwater_api::documents::{AppDocument, DEFAULT_APPS};
use headwater_registry::{Embedded, Store};
use headwater_wire::{Codec, Frame, MediaTime, Track, VideoTrack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_util::sync::CancellationToken;

use super::{Accounts, AppServices, AppState, LocalKey, SessionKey};
use crate::access::Access;
use crate::cluster::ClusterSnapshotCache;
use crate::events::EventBus;
use crate::gateway::hls::Hls;
use crate::gateway::webrtc;
use crate::http::serve::client::{Client, Encryption};
use crate::http::serve::connection::Connections;
use crate::http::serve::metrics::Metrics;
use crate::http::serve::service::HttpService;
use crate::hub::{Hub, Limits, Producer};
use crate::node::admission::Admission;
use crate::node::health::NodeHealthReceiver;
use crate::node::load::LoadMeter;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::trusted_proxies::TrustedProxies;
use crate::runtime::worker_pool::WorkerPool;

/// Larger than any request or response in these tests.
const PIPE_BYTES: usize = 256 << 10;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) encryption: Encryption,
    /// The proxies that the node trusts.
    pub(super) proxies: TrustedProxies,
}

impl Peer {
    /// A peer that is no trusted proxy.
    pub(super) fn new(address: &str, encryption: Encryption) -> Self {
        Self { address: address.parse().unwrap(), encryption, proxies: TrustedProxies::default() }
    }

    /// A program of the same machine, over plain HTTP.
    pub(super) fn local() -> Self {
        Self::new("127.0.0.1", Encryption::None)
    }
}

/// A program of the node's machine, in requests that the router gets without a connection.
pub(super) const LOCAL_CLIENT: Client =
    Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), encryption: Encryption::None, is_local: true };

/// A node with the apps `live` and `LiveApp`.
pub(super) struct TestNode {
    pub(super) hub: Hub,
    pub(super) registry: Store,
    pub(super) state: AppState,
    /// Receives the reports of a daemon that the test plays.
    pub(super) node_health: NodeHealthReceiver,
    folder: PathBuf,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl TestNode {
    pub(super) fn new() -> Self {
        let mut config = Config::default();
        config.webrtc.port = 0;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (shares, addresses) = (SharePolicy::new(&config), [Ipv4Addr::LOCALHOST.into()]);
        let webrtc = webrtc::Gateway::bind(&config.webrtc, &shares, &addresses, EventBus::default()).unwrap();
        let hub = Hub::new(Limits::default());
        let folder = std::env::temp_dir().join(format!("headwater-rest-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let registry = Store::Embedded(Embedded::open(&folder).unwrap());
        let node_health = NodeHealthReceiver::disconnected();
        let (meter, drain) = (LoadMeter::new(&config), CancellationToken::new());
        let state = AppState::new(AppServices {
            hub: hub.clone(),
            access: Access::with_apps(DEFAULT_APPS.map(AppDocument::open).into()),
            accounts: Accounts::new(registry.clone(), SessionKey::from_secret(b"of this test"), None)
                .with_local_key(LocalKey::create(&folder)),
            snapshots: ClusterSnapshotCache::new(registry.clone()),
            registry: registry.clone(),
            node_id: "n".to_owned(),
            endpoints: Endpoints {
                pid: 1,
                http: Some(loopback),
                https: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 5443))),
                self_signed_fingerprint: None,
                rtmp: Some(loopback),
                rtmps: None,
                relay: None,
                webrtc: Vec::new(),
                health: loopback,
            },
            whep: webrtc.whep(),
            hls: Hls::new(&config.hls),
            admission: Admission::new(&config.limits, &meter, &hub, &node_health, &drain),
            peers: None,
        });
        Self { hub, registry, state, node_health, folder }
    }

    /// Sends bytes on a connection of its own, and returns what the server sends until it closes
    /// the connection.
    pub(super) async fn exchange(&self, peer: &Peer, request: &str) -> String {
        let pool = SharePolicy::new(&Config::default()).pool(1);
        let place = pool.take(peer.address).unwrap();
        let connections = Connections::new(
            HttpService::new(self.state.clone()),
            pool,
            peer.proxies.clone(),
            Metrics::default(),
            WorkerPool::inline(),
            CancellationToken::new(),
        );
        let (mut client, stream) = duplex(PIPE_BYTES);
        let serving = tokio::spawn(connections.serve(stream, (peer.address, 1).into(), peer.encryption, place));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        drop(client);
        serving.await.unwrap();
        text
    }

    /// The data folder of the engine.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Publishes a stream of 1280x720 with `ms` of media.
    pub(super) fn publish(&self, name: &str, protocol: &'static str, ms: i64) -> Producer {
        let mut producer = self.hub.publish(&headwater_api::StreamName::parse(name).unwrap(), protocol).unwrap();
        let track = Arc::new(Track {
            codec: Codec::H264,
            config: Bytes::new(),
            codec_string: None,
            video: Some(VideoTrack { width: 1280, height: 720, ..VideoTrack::default() }),
            audio: None,
        });
        for ms in [0, ms] {
            let at = MediaTime::from_ms(ms);
            producer.send(Frame {
                track: Arc::clone(&track),
                dts: at,
                pts: at,
                key: ms == 0,
                payload: Bytes::from_static(b"12345"),
            });
        }
        producer
    }
}
