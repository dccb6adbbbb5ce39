//! Registers this node before its engine starts, and deregisters it after the engine has exited.
//!
//! Only one process at a time can open the embedded registry, and while the node serves that
//! process is the engine. The daemon therefore opens it briefly before the first start and after
//! the last exit. A shared registry stays open, and `cluster/heartbeat.rs` renews the registration.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::control::Endpoints;
use headwater_api::documents::{BootEpoch, NodeDocument, NodeIncarnation};
use headwater_api::error::Chain;
use headwater_program::private_file::is_caused_by_full_disk;
use headwater_registry::{Nodes as _, RegistryError, Store, jitter};
use tokio::sync::watch;

use crate::boot::facts::Instance;
use crate::boot::plan::Plan;
use crate::cluster::cluster_secrets;
use crate::process::service_manager::ServiceManager;

/// A registered node.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// The document it registered with.
    pub node: NodeDocument,
    /// The incarnation that the registry assigned.
    pub incarnation: NodeIncarnation,
    /// The open registry if it is shared; `None` for an embedded one.
    pub shared_store: Option<Store>,
}

/// Builds the node's document. `config` must be the engine's complete configuration.
pub(crate) fn node_document(plan: &Plan, config: &Config, instance: Option<&Instance>) -> NodeDocument {
    let text = |of: fn(&Instance) -> &String| instance.map(of).cloned().unwrap_or_default();
    // A registry node has no engine, so it serves neither viewers nor relays.
    let serves = plan.mongod.is_none();
    let relays = serves && config.relay.secret_file.is_some();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NodeDocument {
        id: config.node.id.clone(),
        role: config.node.role,
        addresses: plan.addresses.clone(),
        relay: if relays { relay_addresses(&plan.addresses, config.relay.listen.port()) } else { Vec::new() },
        url: config
            .node
            .url
            .clone()
            .or_else(|| default_url(&plan.addresses, config.http.listen.address(), config.http.tls_listen.address()))
            .filter(|_| serves),
        group: plan.cluster.as_ref().map(|cluster| cluster.node_group.clone()).unwrap_or_default(),
        zone: text(|i| &i.zone),
        instance_type: text(|i| &i.instance_type),
        image: text(|i| &i.image),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Adds the ports that only a running engine knows, those configured as 0.
pub(crate) fn set_open_ports(node: &mut NodeDocument, engine: &Endpoints) {
    if node.url.is_none() {
        node.url = default_url(&node.addresses, engine.http, engine.https);
    }
    if let (true, Some(at)) = (node.relay.is_empty(), engine.relay) {
        node.relay = relay_addresses(&node.addresses, at.port());
    }
}

/// The base URL of a running node: for other machines, if it has an address that they can reach.
/// `None` if it serves no pages.
pub(crate) fn base_url(config: &Config, addresses: &[IpAddr], engine: &Endpoints) -> Option<String> {
    let addresses: &[IpAddr] = if addresses.is_empty() { &[IpAddr::V4(Ipv4Addr::LOCALHOST)] } else { addresses };
    config.node.url.clone().or_else(|| default_url(addresses, engine.http, engine.https))
}

/// Default base URL: the first address and port. Over HTTP if that is on, since browsers trust no
/// certificate for an address. `None` while the port is unknown.
fn default_url(addresses: &[IpAddr], http: Option<SocketAddr>, https: Option<SocketAddr>) -> Option<String> {
    let (scheme, listener) = http.map(|at| ("http", at)).or_else(|| https.map(|at| ("https", at)))?;
    let first = addresses.first().filter(|_| listener.port() != 0)?;
    Some(format!("{scheme}://{}", SocketAddr::new(*first, listener.port())))
}

/// A plan lists private addresses last; relay traffic uses them first so that it stays inside the
/// network.
fn relay_addresses(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    if port == 0 { Vec::new() } else { addresses.iter().rev().map(|ip| SocketAddr::new(*ip, port)).collect() }
}

/// Registers the node, replacing an earlier incarnation. While a shared registry is unreachable,
/// retries for at most `timeout`, out of service, and logs each new reason once (`last_reason` is
/// the last one logged). `write_pending_tx` is true while a registration may arrive at any moment.
pub(crate) async fn register(
    node: NodeDocument,
    config: &Config,
    manager: &ServiceManager,
    write_pending_tx: &watch::Sender<bool>,
    last_reason: &mut String,
    timeout: Duration,
) -> Result<Registered, RegistryError> {
    let embedded = config.registry.kind == RegistryKind::Embedded;
    let store = loop {
        match open(config).await {
            // There is no file yet, and none can be created.
            Err(e) if is_caused_by_full_disk(&e) => {
                cluster_secrets::report_out_of_service(&e, manager, last_reason);
                tokio::time::sleep(jitter(RETRY_INTERVAL, rand::random_range(0.0..1.0))).await;
            }
            result => break result?,
        }
    };
    let started = tokio::time::Instant::now();
    loop {
        write_pending_tx.send_replace(true);
        let entered = store.register(&node, None).await;
        write_pending_tx.send_replace(false);
        match entered {
            Ok(incarnation) => return Ok(Registered { node, incarnation, shared_store: (!embedded).then_some(store) }),
            Err(e) if !embedded && e.is_retryable() && started.elapsed() < timeout => {
                cluster_secrets::report_out_of_service(&e, manager, last_reason);
                tokio::time::sleep(jitter(RETRY_INTERVAL, rand::random_range(0.0..1.0))).await;
            }
            Err(e) if embedded && is_caused_by_full_disk(&e) => {
                log::warn!(err:% = Chain(&e); "disk is full, the node serves without an entry in its registry");
                let incarnation = NodeIncarnation { node: node.id.clone(), epoch: BootEpoch(node.started_at_ms) };
                return Ok(Registered { node, incarnation, shared_store: None });
            }
            Err(e) => return Err(e),
        }
    }
}

/// Cancels a registration. A request in flight would arrive after this process has exited and stay
/// until its lease ends, so this waits for it and then deregisters.
pub(crate) async fn cancel_registration(
    registration: impl Future<Output = Result<Registered, RegistryError>>,
    mut write_pending_rx: watch::Receiver<bool>,
    config: &Config,
) {
    let in_flight = async {
        tokio::select! {
            biased;
            entered = registration => entered.ok(),
            _ = write_pending_rx.wait_for(|pending| !pending) => None,
        }
    };
    if let Ok(Some(registered)) = tokio::time::timeout(DEREGISTER_TIMEOUT, in_flight).await {
        deregister_within(&registered, config, DEREGISTER_TIMEOUT).await;
    }
}

/// Deregisters the node, giving up after `timeout`.
pub(crate) async fn deregister_within(registered: &Registered, config: &Config, timeout: Duration) {
    match tokio::time::timeout(timeout, deregister(registered, config)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => log::warn!(err:% = Chain(&e); "could not deregister this node"),
        Err(_) => log::warn!("deregistering this node timed out; its lease will expire"),
    }
}

/// Removes the node. It is no error if it is not registered, or if a later incarnation is.
async fn deregister(registered: &Registered, config: &Config) -> Result<(), RegistryError> {
    let store = match &registered.shared_store {
        Some(store) => store.clone(),
        None => open(config).await?,
    };
    store.deregister(&registered.incarnation).await.map(drop)
}

/// Opens the registry. Waits up to [`LOCK_TIMEOUT`] for an engine whose daemon was killed to
/// release it.
pub(crate) async fn open(config: &Config) -> Result<Store, RegistryError> {
    let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        match Store::open(&config.registry, &config.node.data_dir).await {
            Err(RegistryError::Locked { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// Limit for deregistering from a registry that may be unreachable.
pub(crate) const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(3);
/// A killed engine releases its files within milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Mean interval between two attempts to reach the registry.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::facts::Facts;
    use crate::boot::settings::Settings;

    fn plan_in(name: &str) -> Plan {
        let folder = std::env::temp_dir().join(format!("headwaterd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::parse(&format!("node.id = 'a'\nnode.data_dir = '{}'", folder.display())).unwrap();
        crate::boot::plan::plan(&Facts::default(), &settings).unwrap()
    }

    async fn register_node(plan: &Plan) -> Result<Registered, RegistryError> {
        let (node, manager) = (node_document(plan, &plan.engine, None), ServiceManager::new());
        let write_pending_tx = watch::Sender::default();
        register(node, &plan.engine, &manager, &write_pending_tx, &mut String::new(), Duration::MAX).await
    }

    async fn ids(plan: &Plan) -> Vec<String> {
        open(&plan.engine).await.unwrap().nodes().await.unwrap().into_iter().map(|record| record.node.id).collect()
    }

    #[tokio::test]
    async fn node_is_registered_once_and_removed_only_by_its_own_incarnation() {
        let plan = plan_in("enter");
        let first = register_node(&plan).await.unwrap();
        let second = register_node(&plan).await.unwrap();
        assert!(second.incarnation.epoch > first.incarnation.epoch);
        deregister(&first, &plan.engine).await.unwrap();
        assert_eq!(ids(&plan).await, ["a"]);
        deregister(&second, &plan.engine).await.unwrap();
        deregister(&second, &plan.engine).await.unwrap();
        assert!(ids(&plan).await.is_empty());
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }

    #[test]
    fn node_document_is_complete_once_the_engine_has_ports() {
        let settings = "node.addresses = ['203.0.113.7', '2001:db8::7', '10.0.1.12']\nnode.id = 'a'\n\
                        [http]\nlisten = '[::]:0'\n[relay]\nlisten = '[::]:0'\nsecret_file = '/x'\n";
        let check = |text: &str, url: &str, relay: &str| {
            let plan = crate::boot::plan::plan(&Facts::default(), &Settings::parse(text).unwrap()).unwrap();
            let mut node = node_document(&plan, &plan.engine, None);
            assert!(node.started_at_ms > 1_700_000_000_000);
            set_open_ports(
                &mut node,
                &Endpoints {
                    pid: 1,
                    http: plan.engine.http.listen.address().map(|_| "[::]:81".parse().unwrap()),
                    https: Some("[::]:85".parse().unwrap()),
                    self_signed_fingerprint: None,
                    rtmp: None,
                    rtmps: None,
                    relay: Some("[::]:83".parse().unwrap()),
                    webrtc: Vec::new(),
                    health: "[::1]:84".parse().unwrap(),
                },
            );
            assert_eq!((node.url.as_deref(), node.relay[0].to_string().as_str()), (Some(url), relay), "{text}");
            assert_eq!(node.relay.len(), plan.engine.node.addresses.len());
        };
        check(settings, "http://203.0.113.7:81", "10.0.1.12:83");
        check(&settings.replace(":0'", ":90'"), "http://203.0.113.7:90", "10.0.1.12:90");
        check(&settings.replace("'203.0.113.7', ", ""), "http://[2001:db8::7]:81", "10.0.1.12:83");
        let https = settings.replace("[http]\nlisten = '[::]:0'", "[http]\nlisten = 'off'\ntls_listen = '[::]:0'");
        check(&https, "https://203.0.113.7:85", "10.0.1.12:83");
        check(&format!("node.url = 'https://m.example'\n{settings}"), "https://m.example", "10.0.1.12:83");
    }

    #[tokio::test(start_paused = true)]
    async fn registry_that_stays_locked_is_an_error() {
        let plan = plan_in("locked");
        let _lock_holder = open(&plan.engine).await.unwrap();
        assert!(matches!(register_node(&plan).await, Err(RegistryError::Locked { .. })));
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }
}
