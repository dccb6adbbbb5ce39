//! Assembles the engine: opens every listener, starts the tasks of every room, and stops them in
//! order.
//!
//! The only file that knows every room. It must contain no behaviour of its own.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::Config;
use headwater_api::endpoints::{self, Endpoints};
use headwater_api::error::Chain;
use headwater_api::node::{BootEpoch, Life};
use headwater_registry::{RegistryError, Store, Timing};
use headwater_wire::MediaTime;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::apps::Apps;
use crate::cluster::{Cluster, Fixed, Identity, View};
use crate::engine::drain::Farewell;
use crate::gateway::hls::Hls;
use crate::gateway::relay::{self, Locate, SecretFileError};
use crate::gateway::{rtmp, webrtc};
use crate::hub::{Hub, Limits, Owners, WallClock};
use crate::node::admission::Admission;
use crate::node::health::NodeHealthReceiver;
use crate::node::load::Meter;
use crate::runtime::listener::ListenError;
use crate::runtime::tls;
use crate::runtime::worker_pool::Lanes;
use crate::{cluster, http, transcode};

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error("data folder {} cannot be written", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("[tls] cannot be used")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The WebRTC gateway could not be prepared.
    #[error("could not prepare WebRTC")]
    Webrtc(#[source] std::io::Error),
    /// The cluster secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The key that signs sessions cannot be used.
    #[error(transparent)]
    SessionKey(#[from] http::KeyError),
}

/// An engine whose listeners are open.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    hub: Hub,
    apps: Apps,
    /// The registry to read the apps from, if it was unreachable at the start.
    apps_from: Option<Store>,
    http: http::Server,
    health: http::Server,
    rtmp: rtmp::Server,
    webrtc: webrtc::Gateway,
    registry: Store,
    accounts: http::Accounts,
    relay: Option<Joined>,
    told: NodeHealthReceiver,
    drain: CancellationToken,
}

impl Engine {
    /// Opens the data folder, the registry and every listener. Starts no task.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let data_dir = &config.node.data_dir;
        prepare(data_dir).map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
        let registry = Store::open(&config.registry, data_dir).await?;
        let (apps, apps_from) = Apps::read(&registry).await?;
        let tls = tls::load(&config.tls).map_err(|e| StartError::Tls(Box::new(e)))?;
        let http = http::Server::bind(&config.http, tls.clone())?;
        let rtmp = rtmp::Server::bind(&config.rtmp, tls)?;
        let webrtc = webrtc::Gateway::bind(&config.webrtc, &config.node.addresses).map_err(|e| match e {
            webrtc::BindError::Port(e) => StartError::Listen(e),
            webrtc::BindError::Other(e) => StartError::Webrtc(e),
        })?;
        let health = http::Server::bind_plain("health", config.health.listen, http::MAX_HEALTH_CONNECTIONS)?;
        let hub = Hub::with_transcoder(limits(&config), Some(Box::new(transcode::Audio)));
        let relay = join(&config, &hub, &registry)?;
        let key = http::SessionKey::load(config.relay.secret_file.as_deref(), data_dir)?;
        let own_registry = matches!(registry, Store::Embedded(_));
        let accounts = http::Accounts::new(registry.clone(), key, own_registry.then(|| data_dir.clone()));
        let (told, drain) = (NodeHealthReceiver::by_nobody(), CancellationToken::new());
        Ok(Self { config, hub, apps, apps_from, http, health, rtmp, webrtc, registry, accounts, relay, told, drain })
    }

    /// The clock of stream start times.
    pub fn wall_clock(&self) -> &WallClock {
        self.hub.wall_clock()
    }

    /// Sets the receiver of the daemon's health reports, which `/readyz` includes.
    pub fn told(&mut self, told: NodeHealthReceiver) {
        self.told = told;
    }

    /// Cancelling this token starts the drain.
    pub fn drain_handle(&self) -> CancellationToken {
        self.drain.clone()
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints {
            pid: std::process::id(),
            http: self.http.local_addr(),
            https: self.http.tls_local_addr(),
            rtmp: self.rtmp.local_addr(),
            rtmps: self.rtmp.tls_local_addr(),
            relay: self.relay.as_ref().map(|joined| joined.server.local_addr()),
            webrtc: self.webrtc.ports(),
            health: self.health.local_addr(),
        }
    }

    /// Serves until the drain has ended, at most `node.drain_ms` after its start.
    pub async fn run(self) {
        let endpoints = self.endpoints();
        let Self { config, hub, apps, apps_from, http, health, rtmp, webrtc, registry, accounts, relay, told, drain } =
            self;
        let mut tasks: JoinSet<()> = JoinSet::new();
        let deadline = Duration::from_millis(u64::from(config.node.drain_ms.get()));
        let mut metrics = Registry::default();
        metrics.register_collector(Box::new(http::Process));
        let ours = metrics.sub_registry_with_prefix("headwater");
        ours.register_collector(Box::new(http::Carried(hub.clone())));
        rtmp.metrics().register(ours);
        webrtc.whep().metrics().register(ours);
        http.metrics().register(ours);
        let hls = Hls::new(&config.hls);
        hls.metrics().register(ours);
        let pulses: Vec<(&'static str, http::Pulse)> =
            vec![("webrtc", Box::new(webrtc.pulse())), ("loopback", Box::new(rtmp.pulse()))];
        if let Some(joined) = &relay {
            joined.puller.metrics().register(ours);
        }
        let meter = Meter::new(&config);
        let door = Admission::new(&config.limits, &meter, &hub, &told, &drain);
        let farewell = Farewell { drain: drain.clone(), ..Farewell::default() };
        let mut watching: JoinSet<()> = JoinSet::new();
        watching.spawn(rtmp.prove());
        if let Some(registry) = apps_from {
            watching.spawn(apps.clone().follow(registry));
        }
        let answers = Arc::new(http::Health {
            endpoints: endpoints.clone(),
            drain: drain.clone(),
            relay: relay.as_ref().map(|joined| joined.puller.clone()),
            pulses,
            metrics,
            hub: hub.clone(),
            meter: meter.clone(),
            door: door.clone(),
            told: told.clone(),
            disk: (config.node.data_dir.clone(), config.limits.min_free_mb),
        });
        let view = View::new(registry.clone());
        let greets = http::Relays {
            node_id: config.node.id.clone(),
            view: view.clone(),
            relay: relay.as_ref().map(|joined| joined.puller.clone()),
            fixed: config.relay.origins.clone(),
        };
        // The health listener runs until the end of the drain, so that the drain can be observed.
        let watched = CancellationToken::new();
        watching.spawn(health.run(
            Arc::clone(&answers).router().merge(greets.router()),
            Lanes::here(),
            watched.clone(),
            deadline,
        ));
        watching.spawn(meter.clone().run(told, watched));
        if let Some(epoch) = config.node.boot_epoch.filter(|_| matches!(registry, Store::Embedded(_))) {
            let life = Life { node: config.node.id.clone(), epoch: BootEpoch(epoch) };
            let is_ready = move || -> cluster::Readying {
                let answers = Arc::clone(&answers);
                Box::pin(async move { answers.is_ready().await })
            };
            watching.spawn(cluster::stay_registered(registry, life, hub.clone(), meter, drain.clone(), is_ready));
        }
        let mut others: Option<Arc<dyn http::Others>> = None;
        let settling = relay.as_ref().and_then(|joined| joined.cluster.clone());
        if let Some(Joined { server, puller, cluster }) = relay {
            tasks.spawn(server.run(hub.clone(), puller, farewell.feeding.clone()));
            if let Some(cluster) = cluster {
                others = Some(Arc::new(cluster.clone()));
                tasks.spawn(cluster.run(farewell.feeding.clone()));
            }
        }
        let lanes = Lanes::start().unwrap_or_else(|err| {
            log::warn!(err:%; "could not start the worker threads; connections run on the threads that accept them");
            Lanes::here()
        });
        tasks.spawn(rtmp.run(hub.clone(), apps.clone(), door.clone(), lanes.clone(), farewell.feeding.clone()));
        let (closing, ending) = (farewell.closing.clone(), farewell.run(hub.clone(), deadline));
        tasks.spawn(ending);
        let site = http::Site::of(http::State::new(http::Parts {
            hub,
            apps,
            accounts,
            view,
            whep: webrtc.whep(),
            hls,
            node_id: config.node.id.clone(),
            endpoints: endpoints.clone(),
            door,
            others,
        }));
        tasks.spawn(http.run(site, lanes, closing.clone(), deadline));
        let webrtc = webrtc.run(closing);
        tasks.spawn(async move {
            if let Err(e) = webrtc.await {
                log::error!(err:% = Chain(&e); "could not start the WebRTC workers");
            }
        });
        if let Err(e) = announce(&config.node.data_dir, &endpoints) {
            log::error!(err:% = Chain(&e); "could not write the addresses of the listeners");
        }
        log::info!(
            version = env!("CARGO_PKG_VERSION"), node = config.node.id.as_str(), role = config.node.role.as_str(),
            http:% = endpoints.http, rtmp:% = endpoints.rtmp, health:% = endpoints.health,
            webrtc:? = endpoints.webrtc;
            "engine serving"
        );
        drain.cancelled().await;
        if tokio::time::timeout(deadline, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            log::warn!(tasks = tasks.len(); "drain timed out, closing the remaining connections");
        }
        tasks.shutdown().await;
        if let Some(cluster) = settling {
            cluster.settle().await;
        }
        watching.shutdown().await;
        // The file must not outlive the engine. Ignore that it is already removed.
        let _ = std::fs::remove_file(config.node.data_dir.join(endpoints::FILE_NAME));
        log::info!("engine ended");
    }
}

impl<R: headwater_registry::Registry + std::fmt::Debug + 'static> http::Others for Cluster<R> {
    fn is_leaving(&self, node: &str) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let node = node.to_owned();
        Box::pin(async move { Self::is_leaving(self, &node).await })
    }
}

/// The relay of a node in a cluster.
#[derive(Debug)]
struct Joined {
    server: relay::Server,
    puller: relay::Relay,
    cluster: Option<Cluster<Store>>,
}

/// Opens the relay if a cluster secret is configured.
fn join(config: &Config, hub: &Hub, registry: &Store) -> Result<Option<Joined>, StartError> {
    let Some(file) = &config.relay.secret_file else { return Ok(None) };
    let secret = relay::read_secret(file)?;
    let server = relay::Server::bind(&config.relay)?;
    let asks_registry = config.relay.origins.is_empty() && matches!(registry, Store::MongoDb(_));
    let identity = Identity::of(&config.node, server.local_addr());
    let owners = relay::Inquiry::new(secret.clone(), relay::Timing::default().dial);
    let cluster = asks_registry.then(|| Cluster::new(registry.clone(), identity, Box::new(owners), Timing::default()));
    let locate: Arc<dyn Locate> = match &cluster {
        Some(cluster) => Arc::new(cluster.clone()),
        None => Arc::new(Fixed::new(config.relay.origins.clone())),
    };
    let puller = relay::Relay::new(secret, locate, relay::Timing::default());
    hub.join(Box::new(puller.clone()), cluster.clone().map(|cluster| Box::new(cluster) as Box<dyn Owners>));
    Ok(Some(Joined { server, puller, cluster }))
}

fn limits(config: &Config) -> Limits {
    Limits {
        streams: config.node.max_streams.get(),
        segment: MediaTime::from_ms(i64::from(config.hls.segment_ms.get())),
        history_segments: usize::try_from(config.hls.window.get()).unwrap_or(usize::MAX).saturating_add(2),
        ..Limits::default()
    }
}

/// Creates the data folder, checks that it is writable, and removes the endpoints file of a
/// previous run.
fn prepare(data_dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let probe = data_dir.join(".write-probe");
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)?;
    match std::fs::remove_file(data_dir.join(endpoints::FILE_NAME)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes the endpoints file atomically.
fn announce(data_dir: &Path, endpoints: &Endpoints) -> std::io::Result<()> {
    let path = data_dir.join(endpoints::FILE_NAME);
    let draft = path.with_extension("json.draft");
    std::fs::write(&draft, serde_json::to_vec_pretty(endpoints)?)?;
    std::fs::rename(draft, path)
}
