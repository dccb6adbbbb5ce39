//! The entry of a registry node in its own registry: made once its database serves and a write of its has reached the majority,
//! renewed every five seconds. Also where the node hears whether it is ready.
//!
//! Logs in as every node of the cluster does, so that what is proved here is what they need.

use headwater_api::error::Chain;
use headwater_api::node::{BootEpoch, Heartbeat, Load, NodeDocument};
use headwater_api::secret::Secret;
use headwater_program::processors::Processors;
use headwater_registry::{MongoDb, Pace, Registry as _, RegistryError, Store, Timing, spread};
use tokio::sync::watch;

use super::conf::Layout;
use super::keeper::Known;
use crate::register::Registered;
use crate::shared_registry::Login;
use crate::{heartbeat, join};

/// What an entry needs to know.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What the node says of itself.
    pub node: NodeDocument,
    /// Where its files are, and the name of its set.
    pub layout: Layout,
    /// How its database stands.
    pub known: watch::Receiver<Known>,
    /// How to log in.
    pub logins: watch::Receiver<Login>,
    /// The entry, once it is there.
    pub entered: watch::Sender<Option<Registered>>,
    /// True while the node is ready.
    pub ready: watch::Sender<bool>,
}

impl Entry {
    /// Keeps the entry until a later life of this node has registered; says so then.
    pub(crate) async fn until_superseded(&mut self) -> String {
        let mut said = String::new();
        loop {
            if self.known.wait_for(Known::is_member).await.is_err() {
                return std::future::pending().await;
            }
            let e = match self.live(&mut said).await {
                Ok(()) => continue,
                Err(e @ RegistryError::Superseded { .. }) => return Chain(&e).to_string(),
                Err(e) => e,
            };
            self.ready.send_replace(false);
            let why = Chain(&e).to_string();
            if why != said {
                log::warn!(err = why.as_str(); "the registry does not take this node's entry");
                said = why;
            }
            tokio::time::sleep(spread(Timing::default().heartbeat, rand::random_range(0.0..1.0))).await;
        }
    }

    /// Logs in, enters the node and renews its entry, until that does not work or there is another login.
    async fn live(&mut self, said: &mut String) -> Result<(), RegistryError> {
        let login = self.logins.borrow_and_update().clone();
        let mut hosts = self.known.borrow().hosts.clone();
        if hosts.is_empty() {
            hosts.push(self.layout.host());
        }
        let uri = login.uri(&hosts, Some(self.layout.replica_set()));
        // For commands beside the node. They can ask AWS as well.
        if let Err(e) = join::write_private(self.layout.data_dir(), join::REGISTRY_FILE, uri.expose()) {
            log::warn!(err:% = Chain(&e); "could not write how the registry is reached");
        }
        let store = Store::from(MongoDb::open(&Secret::new(uri.expose()), Timing::default()).await?);
        let before = self.entered.borrow().as_ref().map(|registered| registered.life.epoch);
        let registered = self.enter(&store, before).await?;
        let mut told = registered.node.clone();
        let mut processors = Processors::default();
        let mut pace = Pace::new(&Timing::default());
        loop {
            let ready = self.known.borrow_and_update().is_member();
            let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
            let load = Load { cpu_permille: processors.busy_permille(&stat), ..Load::default() };
            let beat = Heartbeat { load, ready, ..Heartbeat::default() };
            heartbeat::renew(&store, &registered, &registered.node, &mut told, &beat).await?;
            if !std::mem::take(said).is_empty() {
                log::info!("the registry takes this node's entry again");
            }
            self.ready.send_replace(ready);
            tokio::select! {
                () = tokio::time::sleep(pace.after(true, rand::random_range(0.0..1.0))) => {}
                Ok(()) = self.known.changed() => {}
                // What is connected stays so: prove the new password with a new connection.
                Ok(()) = self.logins.changed() => return Ok(()),
            }
        }
    }

    async fn enter(&mut self, store: &Store, before: Option<BootEpoch>) -> Result<Registered, RegistryError> {
        let life = store.register(&self.node, before).await?;
        let registered = Registered { node: self.node.clone(), life, shared: Some(store.clone()) };
        self.entered.send_replace(Some(registered.clone()));
        Ok(registered)
    }
}
