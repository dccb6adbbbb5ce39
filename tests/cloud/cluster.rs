//! The test cluster: a registry, origins and edges with their stand-ins for AWS, and the load
//! balancers in front of them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use headwater_tests::autoscaling::FakeAutoScaling;
use headwater_tests::moto::Moto;
use headwater_tests::temp::TempDir;
use headwater_tests::{tools, wait};
use tokio::runtime::Handle;

use crate::balancer::{self, Balancer};
use crate::host::Host;
use crate::missing_tool::MissingTool;
use crate::network::Network;
use crate::node::{CLUSTER_NAME, Node, NodeSpec, PUBLISH_KEY, Role};
use crate::registry::{self, Database, Mongod, Registry, RegistryKind, ReplicaSet};

/// Size of the cluster, and the addresses of its load balancers.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSpec {
    pub(crate) registry: RegistryKind,
    pub(crate) origins: u8,
    pub(crate) edges: u8,
    pub(crate) listen: IpAddr,
    /// First port to try; 0 selects any free port.
    pub(crate) http_port: u16,
    /// Like `http_port`.
    pub(crate) https_port: u16,
    /// Like `http_port`.
    pub(crate) rtmp_port: u16,
}

/// A running cluster. Dropping it ends all processes and removes all networks and files.
pub(crate) struct Cluster {
    /// Origins first.
    pub(crate) nodes: Vec<Node>,
    /// Load balancer for the HTTP listeners of the edges.
    pub(crate) http_balancer: Balancer,
    /// Load balancer for the HTTPS listeners of the edges.
    https_balancer: Balancer,
    /// Load balancer for the RTMP listeners of the origins.
    pub(crate) rtmp_balancer: Balancer,
    pub(crate) groups: FakeAutoScaling,
    pub(crate) registry: Registry,
    pub(crate) runtime: Handle,
    /// Password of the administrator.
    pub(crate) password: String,
    moto: Moto,
    network: Network,
    folder: TempDir,
    launched_instances: u32,
}

impl Cluster {
    /// Builds the cluster and waits until every node is ready; `progress` receives one line per
    /// step. Call it on a thread that outlives the cluster: the processes are tied to that thread.
    pub(crate) fn build(spec: &ClusterSpec, runtime: &Handle, progress: impl Fn(&str)) -> anyhow::Result<Self> {
        let network = Network::new()?;
        let folder = TempDir::new()?;
        let http_listener = bind_free_port(spec.listen, spec.http_port)?;
        let http_balancer = Balancer::start(runtime, http_listener, balancer::Kind::Application)?;
        let https_listener = bind_free_port(spec.listen, spec.https_port)?;
        let https_balancer = Balancer::start(runtime, https_listener, balancer::Kind::Network)?;
        let rtmp_listener = bind_free_port(spec.listen, spec.rtmp_port)?;
        let rtmp_balancer = Balancer::start(runtime, rtmp_listener, balancer::Kind::Network)?;
        let groups = FakeAutoScaling::start(TcpListener::bind((network.gateway(), 0))?)?;
        let mongod = tools::real_mongod_path().filter(|_| spec.registry == RegistryKind::Nodes);
        progress("starting the AWS stand-in, and a database unless registry nodes run one");
        // The host must be created on this thread, which outlives it.
        let host = if mongod.is_none() { Some(Host::with_pid_namespace(&network, 10)?) } else { None };
        let (database, moto) = std::thread::scope(|scope| {
            let database = host.map(|host| scope.spawn(|| Database::start(host, runtime)));
            let moto = Moto::start_at(network.gateway().into());
            (database.map(std::thread::ScopedJoinHandle::join), moto)
        });
        let database = database.transpose().ok().context("starting the database panicked")?.transpose()?;
        let moto = moto?.ok_or(MissingTool)?;
        moto.create_secret(&format!("headwater/{CLUSTER_NAME}/relay"), "the relay secret of the test cluster")?;
        moto.create_secret(&format!("headwater/{CLUSTER_NAME}/publish"), PUBLISH_KEY)?;
        let password = format!("{:016x}", rand::random::<u64>());
        moto.create_secret(&format!("headwater/{CLUSTER_NAME}/administrator"), &password)?;
        let registry = match (mongod, database, spec.registry) {
            (_, Some(database), RegistryKind::Database) => {
                moto.create_secret(REGISTRY_SECRET_NAME, database.uri())?;
                Registry::Database(database)
            }
            (mongod, database, _) => {
                let mongod = mongod.map(Mongod::Real).or(database.map(Mongod::StandIn)).context("no database")?;
                progress(&format!("starting three registry nodes {mongod}"));
                let environment = aws_environment(&moto, &groups);
                let context = registry::ReplicaSetContext {
                    network: &network,
                    moto: &moto,
                    environment,
                    folder: folder.path(),
                    runtime,
                };
                Registry::ReplicaSet(ReplicaSet::start(context, mongod)?)
            }
        };
        let mut cluster = Self {
            nodes: Vec::new(),
            http_balancer,
            https_balancer,
            rtmp_balancer,
            groups,
            registry,
            runtime: runtime.clone(),
            password,
            moto,
            network,
            folder,
            launched_instances: 0,
        };
        progress("starting the nodes");
        for n in 1..=spec.origins {
            cluster.add_node(Role::Origin, &format!("origin-{n}"), 10 + n, &[])?;
        }
        for n in 1..=spec.edges {
            cluster.add_node(Role::Edge, &format!("edge-{n}"), 20 + n, &[])?;
        }
        cluster.wait_ready()?;
        wait::until("healthy nodes at the load balancers", || {
            let healthy = cluster.http_balancer.healthy_count() + cluster.rtmp_balancer.healthy_count();
            (healthy == cluster.nodes.len()).then_some(())
        })?;
        Ok(cluster)
    }

    /// Waits until every node is ready, including the registry nodes.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(Node::wait_ready)?;
        self.registry.replica_set().map_or(Ok(()), ReplicaSet::wait_ready)
    }

    /// Adds and starts a node, and adds it to the load balancer; `last` is the last byte of its
    /// address. Returns its index.
    pub(crate) fn add_node(
        &mut self,
        role: Role,
        name: &str,
        last: u8,
        tags: &[(&str, &str)],
    ) -> anyhow::Result<usize> {
        self.add_node_with_settings(role, name, last, tags, "")
    }

    /// Like [`Cluster::add_node`], with additional settings in its configuration file.
    pub(crate) fn add_node_with_settings(
        &mut self,
        role: Role,
        name: &str,
        last: u8,
        tags: &[(&str, &str)],
        settings: &str,
    ) -> anyhow::Result<usize> {
        let environment = aws_environment(&self.moto, &self.groups);
        let folder = self.folder.path().join(name);
        let (name, settings) = (name.to_owned(), settings.to_owned());
        let mut tags = tags.to_vec();
        let secret = format!("secret:{REGISTRY_SECRET_NAME}");
        if self.registry.replica_set().is_none() {
            tags.push(("headwater:registry", &secret));
        }
        let spec = NodeSpec { name, role, last, tags: &tags, settings, environment, folder };
        let node = Node::new(&self.network, spec)?;
        anyhow::ensure!(role != Role::Registry, "registry nodes cannot be added later");
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.launch_instance(index)?;
        Ok(index)
    }

    /// Kills the node that was added last and removes its host.
    pub(crate) fn remove_last_node(&mut self) {
        let Some(node) = self.nodes.pop() else { return };
        self.groups.forget(node.id());
        self.deregister(&node);
    }

    /// Registers a node at its load balancers.
    pub(crate) fn register(&self, node: &Node) {
        match node.role {
            Role::Origin => self.rtmp_balancer.register(node.rtmp(), node.health()),
            Role::Edge => {
                self.http_balancer.register(node.http(), node.health());
                self.https_balancer.register(node.https(), node.health());
            }
            Role::Registry => {}
        }
    }

    /// Deregisters a node from its load balancers; its connections stay.
    pub(crate) fn deregister(&self, node: &Node) {
        self.rtmp_balancer.deregister(node.rtmp());
        self.http_balancer.deregister(node.http());
        self.https_balancer.deregister(node.https());
    }

    /// Launches a new instance of the group in place of this node.
    pub(crate) fn launch_instance(&mut self, index: usize) -> anyhow::Result<()> {
        self.launched_instances += 1;
        let id = format!("i-0c10d{:012x}", self.launched_instances);
        let node = self.nodes.get_mut(index).context("no such node")?;
        self.groups.forget(node.id());
        let metadata = std::sync::Arc::downgrade(node.metadata());
        let group = node.role.group().context("the node has no Auto Scaling group")?;
        self.groups.launch(&id, group, move |target| {
            if let Some(metadata) = metadata.upgrade() {
                metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned()));
            }
        });
        node.start(&id)?;
        self.register(&self.nodes[index]);
        Ok(())
    }

    /// Launches a new instance in place of this node and waits until it is ready.
    pub(crate) fn relaunch(&mut self, index: usize) -> anyhow::Result<()> {
        self.launch_instance(index)?;
        self.nodes[index].wait_ready()
    }

    /// The indexes of the nodes with this role.
    pub(crate) fn nodes_with_role(&self, role: Role) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].role == role).collect()
    }

    /// The index of the node with this name; registry nodes have none.
    pub(crate) fn find_index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node with this name, including registry nodes.
    pub(crate) fn node(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let members = self.registry.replica_set_mut().map_or(&mut [][..], ReplicaSet::members_mut);
        let mut all = self.nodes.iter_mut().chain(members);
        all.find(|node| node.name == name).with_context(|| format!("no node named {name}"))
    }

    /// Address of this program as seen by the nodes.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.network.gateway().into()
    }

    /// URL for publishing through the load balancer, with the publish key.
    pub(crate) fn publish_url(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}?key={PUBLISH_KEY}", loopback_if_unspecified(self.rtmp_balancer.address()))
    }

    /// URL of a page through the load balancer; `path` starts with a slash.
    pub(crate) fn page_url(&self, path: &str) -> String {
        format!("http://{}{path}", loopback_if_unspecified(self.http_balancer.address()))
    }

    /// URL of the dashboard for logging in, through the load balancer.
    pub(crate) fn login_url(&self) -> String {
        format!("https://{}/", loopback_if_unspecified(self.https_balancer.address()))
    }

    /// The folder with the files of all nodes.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Environment variables that point the nodes to the stand-ins for AWS.
fn aws_environment(moto: &Moto, groups: &FakeAutoScaling) -> Vec<(&'static str, String)> {
    let mut environment = moto.environment();
    environment.push(("AWS_ENDPOINT_URL_AUTO_SCALING", format!("http://{}", groups.address())));
    environment
}

fn loopback_if_unspecified(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Opens a listener on `port` or, if it is in use, on one of the next 20 ports.
fn bind_free_port(ip: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let mut tries = (port..=port.saturating_add(20)).map(|port| TcpListener::bind((ip, port)));
    tries.find_map(Result::ok).with_context(|| format!("no free port from {port} upwards"))
}

/// Name of the secret with the connection string of the single database.
const REGISTRY_SECRET_NAME: &str = "cloud/registry";
