//! Builds the engine: opens the data folder, the registry and every listener. Starts no task.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::Config;
use headwater_api::control::Endpoints;
use headwater_program::descriptors::raise_limit;
use headwater_registry::Store;
use headwater_wire::MediaTime;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, PolicyReader};
use crate::engine::cluster_relay::{ClusterRelay, open_relay};
use crate::engine::data_dir;
use crate::engine::error::StartError;
use crate::events::EventBus;
use crate::gateway::{rtmp, webrtc};
use crate::hub::{Hub, Limits};
use crate::node::daemon_reports::DaemonSocket;
use crate::node::health::NodeHealthReceiver;
use crate::runtime::client_pool::SharePolicy;
use crate::runtime::descriptors::{self, ConnectionLimits, TooFewDescriptors};
use crate::runtime::node_secret::NodeSecret;
use crate::runtime::tls::ServerTls;
use crate::runtime::wall_clock::WallClock;
use crate::{http, transcode};

/// An engine whose listeners are open. [`Engine::run`] serves.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: Config,
    pub(super) hub: Hub,
    pub(super) access: Access,
    pub(super) policies: PolicyReader,
    pub(super) events: EventBus,
    pub(super) registry: Store,
    pub(super) accounts: http::Accounts,
    pub(super) listeners: Listeners,
    pub(super) relay: Option<ClusterRelay>,
    pub(super) node_health: NodeHealthReceiver,
    /// Where the engine sends its reports; `None` without a daemon.
    pub(super) daemon_socket: Option<DaemonSocket>,
    pub(super) drain: CancellationToken,
}

/// The listeners that every node has.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The certificate of HTTPS and RTMPS; `None` if neither is on.
    pub(super) tls: Option<ServerTls>,
    pub(super) http: http::Server,
    pub(super) health: http::HealthServer,
    pub(super) rtmp: rtmp::Server,
    pub(super) webrtc: webrtc::Gateway,
}

impl Listeners {
    fn bind(config: &Config, events: &EventBus) -> Result<Self, StartError> {
        let tls = ServerTls::load(config).map_err(|e| StartError::Tls(Box::new(e)))?;
        let shares = SharePolicy::new(config);
        let http = http::Server::bind(&config.http, &shares, tls.as_ref())?;
        // Programs that publish over RTMPS refuse a self-signed certificate.
        let rtmps = tls.as_ref().filter(|tls| !tls.is_self_signed()).map(|tls| Arc::clone(tls.config()));
        let rtmp = rtmp::Server::bind(&config.rtmp, &shares, rtmps)?;
        let webrtc = webrtc::Gateway::bind(&config.webrtc, &shares, &config.node.addresses, events.clone()).map_err(
            |e| match e {
                webrtc::BindError::Port(e) => StartError::Listen(e),
                webrtc::BindError::Other(e) => StartError::Webrtc(e),
            },
        )?;
        let health = http::HealthServer::bind(config.health.listen)?;
        Ok(Self { tls, http, health, rtmp, webrtc })
    }
}

impl Engine {
    /// Opens the data folder, the registry and every listener.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let config = fit_into_descriptors(config, raise_limit())?;
        let data_dir = &config.node.data_dir;
        let unwritable = |source| StartError::DataDir { path: data_dir.clone(), source };
        data_dir::prepare(data_dir).map_err(unwritable)?;
        let registry = Store::open(&config.registry, data_dir).await?;
        data_dir::remove_stale_endpoints(data_dir).map_err(unwritable)?;
        let hub = Hub::with_transcoder(limits(&config), Some(Box::new(transcode::AudioTranscoder)));
        let secret = NodeSecret::load(config.relay.secret_file.as_deref(), data_dir)?;
        let access = Access::new(Some(registry.clone()), &secret, hub.wall_clock().clone());
        let mut policies = PolicyReader::new(registry.clone(), data_dir.clone());
        access.read_policies(&mut policies).await?;
        let events = EventBus::default();
        let listeners = Listeners::bind(&config, &events)?;
        let relay = open_relay(&config, &hub, &registry)?;
        let own_registry = matches!(registry, Store::Embedded(_));
        let session_key = http::SessionKey::new(&secret);
        let accounts = http::Accounts::new(registry.clone(), session_key, own_registry.then(|| data_dir.clone()))
            .with_local_key(http::LocalKey::create(data_dir));
        let (node_health, drain) = (NodeHealthReceiver::disconnected(), CancellationToken::new());
        Ok(Self {
            config,
            hub,
            access,
            policies,
            events,
            registry,
            accounts,
            listeners,
            relay,
            node_health,
            daemon_socket: None,
            drain,
        })
    }

    /// The clock of stream start times.
    pub fn wall_clock(&self) -> &WallClock {
        self.hub.wall_clock()
    }

    /// Sets the receiver of the daemon's health reports, which `/readyz` includes.
    pub fn set_node_health(&mut self, node_health: NodeHealthReceiver) {
        self.node_health = node_health;
    }

    /// Sets the socket to the daemon, to which the engine then sends its reports.
    pub fn set_daemon_socket(&mut self, socket: DaemonSocket) {
        self.daemon_socket = Some(socket);
    }

    /// Cancelling this token starts the drain.
    pub fn drain_handle(&self) -> CancellationToken {
        self.drain.clone()
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        let Listeners { tls, http, health, rtmp, webrtc } = &self.listeners;
        Endpoints {
            pid: std::process::id(),
            http: http.local_addr(),
            https: http.tls_local_addr(),
            self_signed_fingerprint: tls.as_ref().and_then(ServerTls::self_signed_fingerprint),
            rtmp: rtmp.local_addr(),
            rtmps: rtmp.tls_local_addr(),
            relay: self.relay.as_ref().map(|relay| relay.server.local_addr()),
            webrtc: webrtc.ports(),
            health: health.local_addr(),
        }
    }

    /// How long a drain may take.
    pub(super) fn drain_deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.config.node.drain_ms.get()))
    }
}

/// Lowers the connection limits if `permitted` open files do not suffice for them.
fn fit_into_descriptors(mut config: Config, permitted: u64) -> Result<Config, TooFewDescriptors> {
    let has_relay = config.relay.secret_file.is_some();
    let wanted = ConnectionLimits {
        http: config.http.max_connections.get(),
        rtmp: config.rtmp.max_connections.get(),
        relay: if has_relay { config.relay.max_connections.get() } else { 0 },
    };
    let fitted = descriptors::fit(wanted, permitted)?;
    if fitted != wanted {
        log::warn!(
            permitted, http = fitted.http, rtmp = fitted.rtmp, relay = fitted.relay;
            "connection limits lowered: too few files may be open (LimitNOFILE, ulimit -Hn)"
        );
    }
    let limit = |n: usize, configured| NonZeroUsize::new(n).unwrap_or(configured);
    config.http.max_connections = limit(fitted.http, config.http.max_connections);
    config.rtmp.max_connections = limit(fitted.rtmp, config.rtmp.max_connections);
    config.relay.max_connections = limit(fitted.relay, config.relay.max_connections);
    Ok(config)
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_streams: config.node.max_streams.get(),
        segment_duration: MediaTime::from_ms(i64::from(config.hls.segment_ms.get())),
        part_duration: MediaTime::from_ms(i64::from(config.hls.part_ms.get())),
        history_segments: usize::try_from(config.hls.window.get()).unwrap_or(usize::MAX).saturating_add(2),
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_limits_are_lowered_to_the_permitted_open_files() {
        let config = fit_into_descriptors(Config::default(), 1_024).unwrap();
        assert!(config.http.max_connections.get() + config.rtmp.max_connections.get() <= 512);
        let relay = config.relay.max_connections;
        assert_eq!(relay, Config::default().relay.max_connections, "there is no relay without a secret");
        assert_eq!(fit_into_descriptors(Config::default(), 1 << 20).unwrap(), Config::default());
        assert!(fit_into_descriptors(Config::default(), 64).is_err());
    }
}
