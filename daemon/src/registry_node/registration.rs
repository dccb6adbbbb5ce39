//! Registers a registry node in its own registry, once its database serves and a write has reached
//! the majority, and renews the lease every five seconds. Also decides whether the node is ready.
//!
//! Uses the login of all nodes of the cluster, so that readiness proves what they need.

use std::time::Instant;

use headwater_api::documents::{BootEpoch, Heartbeat, Load, NodeDocument};
use headwater_api::error::Chain;
use headwater_program::cpu_meter::CpuMeter;
use headwater_program::private_file::write_private;
use headwater_registry::{HeartbeatInterval, MongoDb, Nodes as _, RegistryError, Store, Timing, jitter};
use tokio::sync::watch;

use crate::boot::registration::Registered;
use crate::cluster::shared_registry::Login;
use crate::cluster::{cluster_secrets, heartbeat};
use crate::registry_node::config::MongodConfig;
use crate::registry_node::readiness::NodeStatus;
use crate::registry_node::reconciler::DatabaseStatus;

/// Registers this node and renews its lease.
#[derive(Debug)]
pub(crate) struct SelfRegistration {
    /// The document to register.
    pub node: NodeDocument,
    /// The mongod's files and replica set name.
    pub mongod_config: MongodConfig,
    /// Status of the database.
    pub status_rx: watch::Receiver<DatabaseStatus>,
    /// The login of the cluster's nodes.
    pub login_rx: watch::Receiver<Login>,
    /// The registration, once it has succeeded.
    pub registered_tx: watch::Sender<Option<Registered>>,
    /// True while the node is ready.
    pub ready_tx: watch::Sender<bool>,
    /// The status of the node, with the result of each write.
    pub node_tx: watch::Sender<NodeStatus>,
}

impl SelfRegistration {
    /// Keeps the node registered until a later incarnation of it has registered, and returns that
    /// error.
    pub(crate) async fn run_until_superseded(&mut self) -> String {
        let mut last_reason = String::new();
        loop {
            if self.status_rx.wait_for(DatabaseStatus::is_member).await.is_err() {
                return std::future::pending().await;
            }
            let e = match self.register_and_renew(&mut last_reason).await {
                Ok(()) => continue,
                Err(e @ RegistryError::Superseded { .. }) => {
                    let reason = Chain(&e).to_string();
                    self.node_tx.send_modify(|node| node.registered = Err(reason.clone()));
                    return reason;
                }
                Err(e) => e,
            };
            self.ready_tx.send_replace(false);
            let reason = Chain(&e).to_string();
            self.node_tx.send_modify(|node| node.write_failure = Some(reason.clone()));
            if reason != last_reason {
                log::warn!(err = reason.as_str(); "could not register this node or renew its lease");
                last_reason = reason;
            }
            tokio::time::sleep(jitter(Timing::default().heartbeat_interval, rand::random_range(0.0..1.0))).await;
        }
    }

    /// Logs in, registers the node and renews its lease, until an error occurs or the login
    /// changes.
    async fn register_and_renew(&mut self, last_reason: &mut String) -> Result<(), RegistryError> {
        let login = self.login_rx.borrow_and_update().clone();
        let mut hosts = self.status_rx.borrow().hosts.clone();
        if hosts.is_empty() {
            hosts.push(self.mongod_config.host());
        }
        let uri = login.uri(&hosts, Some(self.mongod_config.replica_set()));
        // For commands that run while the node runs. They can also ask AWS.
        if let Err(e) = write_private(self.mongod_config.data_dir(), cluster_secrets::REGISTRY_URI_FILE, uri.reveal()) {
            log::warn!(err:% = Chain(&e); "could not write the registry's connection string");
        }
        let store = Store::from(MongoDb::open(&uri, Timing::default()).await?);
        let previous = self.registered_tx.borrow().as_ref().map(|registered| registered.incarnation.epoch);
        let registered = self.register(&store, previous).await?;
        let mut last_sent = registered.node.clone();
        let mut processors = CpuMeter::default();
        let mut interval = HeartbeatInterval::new(&Timing::default());
        loop {
            let ready = self.status_rx.borrow_and_update().is_member();
            let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
            let load = Load { cpu_permille: processors.usage_permille(&stat), ..Load::default() };
            let heartbeat = Heartbeat { load, ready, ..Heartbeat::default() };
            heartbeat::renew(&store, &registered, &registered.node, &mut last_sent, &heartbeat).await?;
            self.node_tx.send_modify(|node| node.on_write(Instant::now()));
            if !std::mem::take(last_reason).is_empty() {
                log::info!("this node is registered again");
            }
            self.ready_tx.send_replace(ready);
            tokio::select! {
                () = tokio::time::sleep(interval.next_delay(true, rand::random_range(0.0..1.0))) => {}
                Ok(()) = self.status_rx.changed() => {}
                // Existing connections stay open: prove the new password with a new connection.
                Ok(()) = self.login_rx.changed() => return Ok(()),
            }
        }
    }

    async fn register(&mut self, store: &Store, previous: Option<BootEpoch>) -> Result<Registered, RegistryError> {
        let incarnation = store.register(&self.node, previous).await?;
        let registered = Registered { node: self.node.clone(), incarnation, shared_store: Some(store.clone()) };
        self.registered_tx.send_replace(Some(registered.clone()));
        Ok(registered)
    }
}
