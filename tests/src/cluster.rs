//! Nodes of the cluster `demo` as AWS would run them: instances whose tags are in their own
//! metadata service and whose registry address and secrets are in moto. Each node is the built
//! `headwaterd` with its engine.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::autoscaling::FakeAutoScaling;
use crate::daemon::Daemon;
use crate::engine::{Options, wait_status};
use crate::metadata::FakeMetadata;
use crate::moto::Moto;

/// The secret that all nodes share. No log may contain it.
pub const RELAY_SECRET: &str = "the relay secret of this test";

/// The key that publishers of the cluster need; the URLs of [`Node::rtmp_url`] contain it.
pub const PUBLISH_KEY: &str = "the-publish-key-of-this-test";

/// The name of the secret with the registry's connection string.
const REGISTRY_SECRET_NAME: &str = "demo/registry";

/// Starts the AWS of the cluster with the registry's connection string and the publish key as its
/// only secrets. Returns `None` if moto is not installed; the skip is printed.
///
/// # Errors
/// If moto does not come up.
pub fn start_aws_without_relay_secret(registry_uri: &str) -> anyhow::Result<Option<Moto>> {
    let Some(moto) = Moto::start()? else { return Ok(None) };
    moto.create_secret(REGISTRY_SECRET_NAME, registry_uri)?;
    moto.create_secret("headwater/demo/publish", PUBLISH_KEY)?;
    Ok(Some(moto))
}

/// Starts the AWS of the cluster with every secret that a node needs. Returns `None` if moto is not
/// installed; the skip is printed.
///
/// # Errors
/// If moto does not come up.
pub fn start_aws(registry_uri: &str) -> anyhow::Result<Option<Moto>> {
    let Some(moto) = start_aws_without_relay_secret(registry_uri)? else { return Ok(None) };
    add_relay_secret(&moto)?;
    Ok(Some(moto))
}

/// Adds the relay's secret.
///
/// # Errors
/// If it exists already.
pub fn add_relay_secret(aws: &Moto) -> anyhow::Result<()> {
    aws.create_secret("headwater/demo/relay", RELAY_SECRET)
}

/// Adds the administrator's secret.
///
/// # Errors
/// If it exists already.
pub fn add_administrator_secret(aws: &Moto) -> anyhow::Result<()> {
    aws.create_secret("headwater/demo/administrator", r#"{"password": "the cluster's own password"}"#)
}

/// Replaces the connection string of the registry.
///
/// # Errors
/// If moto refuses it.
pub fn change_registry_uri(aws: &Moto, registry_uri: &str) -> anyhow::Result<()> {
    aws.put_secret(REGISTRY_SECRET_NAME, registry_uri)
}

/// A running instance of the cluster. Killed on drop, together with its metadata service.
#[derive(Debug)]
pub struct Node {
    /// The daemon of the node.
    pub daemon: Daemon,
    /// Its metadata service; may be changed at any time.
    pub metadata: Arc<FakeMetadata>,
}

impl Node {
    /// Starts the instance `id` with this role.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(aws: &Moto, id: &str, role: &str) -> anyhow::Result<Self> {
        Self::start_with(aws, id, role, |_| {})
    }

    /// Like [`Node::start`], with changed settings, environment or log level.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(aws: &Moto, id: &str, role: &str, change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        Self::launch(aws, Arc::new(start_metadata(id, role, &[])?), change)
    }

    /// Starts a node as Auto Scaling launches it: as a member of the group named after its role,
    /// waiting for the launching hook.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_in_group(
        aws: &Moto,
        groups: &FakeAutoScaling,
        id: &str,
        role: &str,
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Self> {
        let metadata = start_member_metadata(id, role)?;
        groups.launch(id, role, target_state_callback(&metadata));
        Self::launch(aws, metadata, |options| {
            options.environment.push(autoscaling_endpoint(groups));
            change(options);
        })
    }

    /// Starts a node in the warm pool of its group, which keeps instances in the state
    /// `pool_state`: `Running`, `Stopped` or `Hibernated`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_in_pool(
        aws: &Moto,
        groups: &FakeAutoScaling,
        id: &str,
        role: &str,
        pool_state: &'static str,
    ) -> anyhow::Result<Self> {
        let metadata = start_member_metadata(id, role)?;
        groups.launch_warm(id, role, pool_state, target_state_callback(&metadata));
        Self::launch(aws, metadata, |options| options.environment.push(autoscaling_endpoint(groups)))
    }

    /// Stops and starts the machine: runs the daemon again with the same metadata.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(self, aws: &Moto, groups: &FakeAutoScaling) -> anyhow::Result<Self> {
        let Self { daemon, metadata } = self;
        drop(daemon);
        Self::launch(aws, metadata, |options| options.environment.push(autoscaling_endpoint(groups)))
    }

    fn launch(aws: &Moto, metadata: Arc<FakeMetadata>, change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        let mut options = Options::with(|c| {
            c.metadata.endpoint = metadata.address();
            c.relay.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        });
        options.environment = aws.environment();
        change(&mut options);
        Ok(Self { daemon: Daemon::start(options)?, metadata })
    }

    /// Waits until the node logs that it is ready.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        self.daemon.process().wait_line("node ready").map(drop)
    }

    /// Waits for the address of its HTTP server.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        self.daemon.wait_endpoints(None)?.http.context("plain HTTP is off")
    }

    /// Waits for the address of its health and metrics server.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn health(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.daemon.wait_endpoints(None)?.health)
    }

    /// Waits for its RTMP server and returns `rtmp://127.0.0.1:PORT/APP/STREAM_ID?key=KEY`.
    ///
    /// # Errors
    /// If there is none in time.
    pub fn rtmp_url(&self, name: &str) -> anyhow::Result<String> {
        let rtmp = self.daemon.wait_endpoints(None)?.rtmp.context("plain RTMP is off")?;
        Ok(format!("rtmp://{rtmp}/{name}?key={PUBLISH_KEY}"))
    }

    /// Waits until the stream has video at this node.
    ///
    /// # Errors
    /// If it has none in time.
    pub fn wait_live(&self, name: &str) -> anyhow::Result<()> {
        wait_status(self.http()?, name, "video", |s| s.video.is_some()).map(drop)
    }
}

/// Starts the metadata service of an instance in the group named after its role.
fn start_member_metadata(id: &str, role: &str) -> anyhow::Result<Arc<FakeMetadata>> {
    Ok(Arc::new(start_metadata(id, role, &[("aws:autoscaling:groupName", role)])?))
}

/// Returns a callback that publishes the target lifecycle state in the metadata of the instance.
fn target_state_callback(metadata: &Arc<FakeMetadata>) -> impl Fn(&str) + Send + Sync + 'static {
    let weak_metadata = Arc::downgrade(metadata);
    move |target| {
        if let Some(metadata) = weak_metadata.upgrade() {
            metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned()));
        }
    }
}

fn autoscaling_endpoint(groups: &FakeAutoScaling) -> (&'static str, String) {
    ("AWS_ENDPOINT_URL_AUTO_SCALING", format!("http://{}", groups.address()))
}

fn start_metadata(id: &str, role: &str, extra_tags: &[(&str, &str)]) -> anyhow::Result<FakeMetadata> {
    let registry = format!("secret:{REGISTRY_SECRET_NAME}");
    let tags = [("headwater:role", role), ("headwater:cluster", "demo"), ("headwater:registry", registry.as_str())];
    let metadata = FakeMetadata::start(&[&tags[..], extra_tags].concat())?;
    metadata.change(|s| id.clone_into(&mut s.id));
    Ok(metadata)
}
