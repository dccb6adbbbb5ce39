//! Nodes of the cluster `demo` as AWS would run them: instances with tags in a metadata service of their own, whose registry
//! and secrets are in moto. Each is the whole node: the built `headwaterd` with its engine.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::autoscaling::Groups;
use crate::daemon::Daemon;
use crate::engine::{Options, wait_status};
use crate::metadata::Fake;
use crate::moto::Moto;

/// The secret that all nodes share; no log may show it.
pub const RELAY_SECRET: &str = "the relay secret of this test";

/// The name of the secret with the registry's connection string.
const REGISTRY: &str = "demo/registry";

/// The AWS of the cluster: knows where its registry is, and no other secret. `None` without moto (said aloud).
///
/// # Errors
/// If moto does not come up.
pub fn aws_without_relay(registry_uri: &str) -> anyhow::Result<Option<Moto>> {
    let Some(moto) = Moto::start()? else { return Ok(None) };
    moto.secret(REGISTRY, registry_uri)?;
    Ok(Some(moto))
}

/// The AWS of the cluster, with everything a node needs. `None` without moto (said aloud).
///
/// # Errors
/// If moto does not come up.
pub fn aws(registry_uri: &str) -> anyhow::Result<Option<Moto>> {
    let Some(moto) = aws_without_relay(registry_uri)? else { return Ok(None) };
    add_relay(&moto)?;
    Ok(Some(moto))
}

/// Adds the relay's secret.
///
/// # Errors
/// If it is there.
pub fn add_relay(aws: &Moto) -> anyhow::Result<()> {
    aws.secret("headwater/demo/relay", RELAY_SECRET)
}

/// Adds the administrator's secret.
///
/// # Errors
/// If it is there.
pub fn add_administrator(aws: &Moto) -> anyhow::Result<()> {
    aws.secret("headwater/demo/administrator", r#"{"password": "the cluster's own password"}"#)
}

/// The registry is elsewhere, or under another password, from now on.
///
/// # Errors
/// If moto does not take it.
pub fn move_registry(aws: &Moto, registry_uri: &str) -> anyhow::Result<()> {
    aws.put_secret(REGISTRY, registry_uri)
}

/// An instance of the cluster, running. Dropped = killed, and its metadata gone.
#[derive(Debug)]
pub struct Node {
    /// The node itself.
    pub daemon: Daemon,
    /// What its metadata says; may be changed at any time.
    pub metadata: Arc<Fake>,
}

impl Node {
    /// Starts the instance `id` with this role.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(aws: &Moto, id: &str, role: &str) -> anyhow::Result<Self> {
        Self::start_with(aws, id, role, |_| {})
    }

    /// The same with other settings, environment or log level.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(aws: &Moto, id: &str, role: &str, change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        Self::launch(aws, Arc::new(metadata(id, role, &[])?), change)
    }

    /// The same, as Auto Scaling launches it: a member of a group of its role's name, held by the launching hook.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_in_group(
        aws: &Moto,
        groups: &Groups,
        id: &str,
        role: &str,
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Self> {
        let metadata = member(id, role)?;
        groups.launch(id, role, teller(&metadata));
        Self::launch(aws, metadata, |options| {
            options.environment.push(scaling(groups));
            change(options);
        })
    }

    /// The same, into the warm pool of its group, which keeps instances in the state `pool`: `Running`, `Stopped` or `Hibernated`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_in_pool(
        aws: &Moto,
        groups: &Groups,
        id: &str,
        role: &str,
        pool: &'static str,
    ) -> anyhow::Result<Self> {
        let metadata = member(id, role)?;
        groups.launch_warm(id, role, pool, teller(&metadata));
        Self::launch(aws, metadata, |options| options.environment.push(scaling(groups)))
    }

    /// The same machine, stopped and started: another run of the daemon with the same metadata.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_again(self, aws: &Moto, groups: &Groups) -> anyhow::Result<Self> {
        let Self { daemon, metadata } = self;
        drop(daemon);
        Self::launch(aws, metadata, |options| options.environment.push(scaling(groups)))
    }

    fn launch(aws: &Moto, metadata: Arc<Fake>, change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        let mut options = Options::with(|c| {
            c.metadata.endpoint = metadata.address();
            c.relay.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        });
        options.environment = aws.environment();
        change(&mut options);
        Ok(Self { daemon: Daemon::start(options)?, metadata })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        self.daemon.process().line("node ready").map(drop)
    }

    /// Its web server; waits until there is one.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.daemon.endpoints(None)?.http)
    }

    /// Its health and metrics; waits until they are there.
    ///
    /// # Errors
    /// If they are not in time.
    pub fn health(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.daemon.endpoints(None)?.health)
    }

    /// `rtmp://127.0.0.1:PORT/APP/STREAM_ID`; waits until there is such a server.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn rtmp_url(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("rtmp://{}/{name}", self.daemon.endpoints(None)?.rtmp))
    }

    /// Waits until the stream has pictures here.
    ///
    /// # Errors
    /// If it has none in time.
    pub fn wait_live(&self, name: &str) -> anyhow::Result<()> {
        wait_status(self.http()?, name, "pictures", |s| s.video.is_some()).map(drop)
    }
}

/// Of an instance in the group of its role's name.
fn member(id: &str, role: &str) -> anyhow::Result<Arc<Fake>> {
    Ok(Arc::new(metadata(id, role, &[("aws:autoscaling:groupName", role)])?))
}

/// Shows in metadata where Auto Scaling wants the instance to go.
fn teller(metadata: &Arc<Fake>) -> impl Fn(&str) + Send + Sync + 'static {
    let told = Arc::downgrade(metadata);
    move |target| {
        if let Some(metadata) = told.upgrade() {
            metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned()));
        }
    }
}

fn scaling(groups: &Groups) -> (&'static str, String) {
    ("AWS_ENDPOINT_URL_AUTO_SCALING", format!("http://{}", groups.address()))
}

fn metadata(id: &str, role: &str, more: &[(&str, &str)]) -> anyhow::Result<Fake> {
    let registry = format!("secret:{REGISTRY}");
    let tags = [("headwater:role", role), ("headwater:cluster", "demo"), ("headwater:registry", registry.as_str())];
    let metadata = Fake::start(&[&tags[..], more].concat())?;
    metadata.change(|s| id.clone_into(&mut s.id));
    Ok(metadata)
}
