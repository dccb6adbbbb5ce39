//! Enters this node in the registry before its engine starts, and removes it when it has ended.
//!
//! One process at a time may have the embedded registry open, and while the node serves that is the engine. So the
//! daemon opens it for a moment before the first start and after the last end. A shared registry stays open, and
//! `heartbeat.rs` renews the entry.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_api::Config;
use headwater_api::config::RegistryKind;
use headwater_api::endpoints::Endpoints;
use headwater_api::error::Chain;
use headwater_api::node::{Life, NodeDocument};
use headwater_registry::{Registry as _, RegistryError, Store, spread};
use tokio::sync::watch;

use crate::facts::Instance;
use crate::join;
use crate::lifecycle::ServiceManager;
use crate::plan::Plan;

/// The node as it was entered.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// What it said of itself.
    pub node: NodeDocument,
    /// Which of its lives this is.
    pub life: Life,
    /// The registry, if others may have it open too.
    pub shared: Option<Store>,
}

/// What the node says of itself. `config` is the engine's, complete.
pub(crate) fn document(plan: &Plan, config: &Config, instance: Option<&Instance>) -> NodeDocument {
    let text = |of: fn(&Instance) -> &String| instance.map(of).cloned().unwrap_or_default();
    // A registry node has no engine: nothing of it is for viewers or for the relays of others.
    let serves = plan.mongod.is_none();
    let relays = serves && config.relay.secret_file.is_some();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    NodeDocument {
        id: config.node.id.clone(),
        role: config.node.role,
        addresses: plan.addresses.clone(),
        relay: if relays { relay(&plan.addresses, config.relay.listen.port()) } else { Vec::new() },
        url: config.node.url.clone().or_else(|| url(&plan.addresses, config.http.listen.port())).filter(|_| serves),
        group: plan.cluster.as_ref().map(|cluster| cluster.node_group.clone()).unwrap_or_default(),
        zone: text(|i| &i.zone),
        instance_type: text(|i| &i.instance_type),
        image: text(|i| &i.image),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Adds what only a running engine knows: the ports that were left open in the file.
pub(crate) fn complete(node: &mut NodeDocument, engine: &Endpoints) {
    if node.url.is_none() {
        node.url = url(&node.addresses, engine.http.port());
    }
    if let (true, Some(at)) = (node.relay.is_empty(), engine.relay) {
        node.relay = relay(&node.addresses, at.port());
    }
}

/// Where viewers and other nodes' hints find the web server, if nobody said it: its first address, without TLS, since no
/// certificate is for an address.
fn url(addresses: &[IpAddr], port: u16) -> Option<String> {
    let first = addresses.first().filter(|_| port != 0)?;
    Some(format!("http://{}", SocketAddr::new(*first, port)))
}

/// Private addresses come last in a plan, and first here: what nodes say to each other stays inside.
fn relay(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    if port == 0 { Vec::new() } else { addresses.iter().rev().map(|ip| SocketAddr::new(*ip, port)).collect() }
}

/// Enters the node, in place of an earlier life of it. A shared registry that is away is waited for, out of service, which is said once
/// for each reason: `said` is the last. Not longer than `patience`; then it is somebody else's turn to say where the registry is.
/// `writing` is true while the entry may be made at any moment.
pub(crate) async fn enter(
    node: NodeDocument,
    config: &Config,
    manager: &ServiceManager,
    writing: &watch::Sender<bool>,
    said: &mut String,
    patience: Duration,
) -> Result<Registered, RegistryError> {
    let embedded = config.registry.kind == RegistryKind::Embedded;
    let store = open(config).await?;
    let begun = tokio::time::Instant::now();
    loop {
        writing.send_replace(true);
        let entered = store.register(&node, None).await;
        writing.send_replace(false);
        match entered {
            Ok(life) => return Ok(Registered { node, life, shared: (!embedded).then_some(store) }),
            Err(e) if !embedded && e.is_retryable() && begun.elapsed() < patience => {
                join::out_of_service(&e, manager, said);
                tokio::time::sleep(spread(PAUSE, rand::random_range(0.0..1.0))).await;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Gives up entering the node. What is on its way to the registry would arrive after the end of this process, and stay until the
/// lease ends: it is waited for, and taken back.
pub(crate) async fn give_up(
    entering: impl Future<Output = Result<Registered, RegistryError>>,
    mut writes: watch::Receiver<bool>,
    config: &Config,
) {
    let arriving = async {
        tokio::select! {
            biased;
            entered = entering => entered.ok(),
            _ = writes.wait_for(|writing| !writing) => None,
        }
    };
    if let Ok(Some(registered)) = tokio::time::timeout(FAREWELL, arriving).await {
        take_leave(&registered, config, FAREWELL).await;
    }
}

/// [`leave`], as far as it can be done within `patience`.
pub(crate) async fn take_leave(registered: &Registered, config: &Config, patience: Duration) {
    match tokio::time::timeout(patience, leave(registered, config)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => log::warn!(err:% = Chain(&e); "could not leave the registry"),
        Err(_) => log::warn!("the registry did not hear that this node leaves; its lease will end"),
    }
}

/// Removes the node. That it was not there, or that a later life of it is, is fine.
async fn leave(registered: &Registered, config: &Config) -> Result<(), RegistryError> {
    let store = match &registered.shared {
        Some(store) => store.clone(),
        None => open(config).await?,
    };
    store.leave(&registered.life).await.map(drop)
}

/// Opens the registry; for a moment it may still be held by an engine whose daemon was killed.
pub(crate) async fn open(config: &Config) -> Result<Store, RegistryError> {
    let patient_until = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Store::open(&config.registry, &config.node.data_dir).await {
            Err(RegistryError::Locked { .. }) if tokio::time::Instant::now() < patient_until => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Leaving must not wait longer for a registry that is away.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);
/// A killed engine lets go of its files within milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts at a registry that is away.
const PAUSE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::settings::Settings;

    fn plan_in(name: &str) -> Plan {
        let folder = std::env::temp_dir().join(format!("headwaterd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings::parse(&format!("node.id = 'a'\nnode.data_dir = '{}'", folder.display())).unwrap();
        crate::plan::plan(&Facts::default(), &settings).unwrap()
    }

    async fn entered(plan: &Plan) -> Result<Registered, RegistryError> {
        let (node, manager) = (document(plan, &plan.engine, None), ServiceManager::find());
        let writing = watch::Sender::default();
        enter(node, &plan.engine, &manager, &writing, &mut String::new(), Duration::MAX).await
    }

    async fn ids(plan: &Plan) -> Vec<String> {
        open(&plan.engine).await.unwrap().nodes().await.unwrap().into_iter().map(|record| record.node.id).collect()
    }

    #[tokio::test]
    async fn a_node_is_entered_once_and_removed_by_its_own_life_alone() {
        let plan = plan_in("enter");
        let first = entered(&plan).await.unwrap();
        let second = entered(&plan).await.unwrap();
        assert!(second.life.epoch > first.life.epoch);
        leave(&first, &plan.engine).await.unwrap();
        assert_eq!(ids(&plan).await, ["a"]);
        leave(&second, &plan.engine).await.unwrap();
        leave(&second, &plan.engine).await.unwrap();
        assert!(ids(&plan).await.is_empty());
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }

    #[test]
    fn what_a_node_says_of_itself_is_complete_once_its_engine_has_ports() {
        let settings = "node.addresses = ['203.0.113.7', '2001:db8::7', '10.0.1.12']\nnode.id = 'a'\n\
                        [http]\nlisten = '[::]:0'\n[relay]\nlisten = '[::]:0'\nsecret_file = '/x'\n";
        let check = |text: &str, url: &str, relay: &str| {
            let plan = crate::plan::plan(&Facts::default(), &Settings::parse(text).unwrap()).unwrap();
            let mut node = document(&plan, &plan.engine, None);
            assert!(node.started_at_ms > 1_700_000_000_000);
            complete(
                &mut node,
                &Endpoints {
                    pid: 1,
                    http: "[::]:81".parse().unwrap(),
                    https: None,
                    rtmp: "[::]:82".parse().unwrap(),
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
        check(&format!("node.url = 'https://m.example'\n{settings}"), "https://m.example", "10.0.1.12:83");
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_stays_locked_is_an_error() {
        let plan = plan_in("locked");
        let _held = open(&plan.engine).await.unwrap();
        assert!(matches!(entered(&plan).await, Err(RegistryError::Locked { .. })));
        std::fs::remove_dir_all(&plan.engine.node.data_dir).unwrap();
    }
}
