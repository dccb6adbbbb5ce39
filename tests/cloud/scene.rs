//! The whole cloud: a registry, origins and edges with their stand-ins for AWS, and the balancer in front of them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use headwater_tests::autoscaling::Groups;
use headwater_tests::moto::Moto;
use headwater_tests::temp::Folder;
use headwater_tests::tools;
use tokio::runtime::Handle;

use crate::balancer::Balancer;
use crate::host::Host;
use crate::node::{CLUSTER, Node, Plan, Role};
use crate::place::Place;
use crate::registry::{self, Database, Kind, Mongod, Registry, Set};

/// How many of what, and where the balancer listens.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) registry: Kind,
    pub(crate) origins: u8,
    pub(crate) edges: u8,
    pub(crate) listen: IpAddr,
    /// First port that is tried; 0: any.
    pub(crate) http_port: u16,
    /// As `http_port`.
    pub(crate) rtmp_port: u16,
}

/// Everything that runs. Dropped = nothing of it is left.
pub(crate) struct Scene {
    /// Origins first.
    pub(crate) nodes: Vec<Node>,
    /// To the web servers of the edges.
    pub(crate) http: Balancer,
    /// To the RTMP servers of the origins.
    pub(crate) rtmp: Balancer,
    pub(crate) groups: Groups,
    pub(crate) registry: Registry,
    pub(crate) runtime: Handle,
    /// Of the administrator.
    pub(crate) password: String,
    moto: Moto,
    place: Place,
    folder: Folder,
    instances: u32,
}

/// Why there is nothing: a tool is missing, which has been said.
#[derive(Debug, thiserror::Error)]
#[error("the test cloud cannot be built here")]
pub(crate) struct Missing;

impl Scene {
    /// Builds it and waits until every node is ready. `say` hears what is going on. To be called on a thread that outlives it.
    pub(crate) fn build(wish: &Wish, runtime: &Handle, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let place = Place::new()?;
        let folder = Folder::new()?;
        let http = Balancer::start(runtime, free(wish.listen, wish.http_port)?)?;
        let rtmp = Balancer::start(runtime, free(wish.listen, wish.rtmp_port)?)?;
        let groups = Groups::start(TcpListener::bind((place.gateway(), 0))?)?;
        let mongod = tools::real_mongod().filter(|_| wish.registry == Kind::Nodes);
        say("starting the stand-in for AWS, and a database unless the registry nodes bring it");
        // Hosts belong to this thread.
        let host = if mongod.is_none() { Some(Host::with_processes(&place, 10)?) } else { None };
        let (database, moto) = std::thread::scope(|scope| {
            let database = host.map(|host| scope.spawn(|| Database::start(host, runtime)));
            let moto = Moto::start_at(place.gateway().into());
            (database.map(std::thread::ScopedJoinHandle::join), moto)
        });
        let database = database.transpose().ok().context("starting the database panicked")?.transpose()?;
        let moto = moto?.ok_or(Missing)?;
        moto.secret(&format!("headwater/{CLUSTER}/relay"), "the relay secret of the test cloud")?;
        let password = format!("{:016x}", rand::random::<u64>());
        moto.secret(&format!("headwater/{CLUSTER}/administrator"), &password)?;
        let registry = match (mongod, database, wish.registry) {
            (_, Some(database), Kind::Database) => {
                moto.secret(REGISTRY_SECRET, database.uri())?;
                Registry::Database(database)
            }
            (mongod, database, _) => {
                let mongod = mongod.map(Mongod::Real).or(database.map(Mongod::StandIn)).context("no database")?;
                say(&format!("starting three registry nodes: {mongod}"));
                let environment = environment(&moto, &groups);
                let at = registry::Place { network: &place, moto: &moto, environment, folder: folder.path(), runtime };
                Registry::Set(Set::start(at, mongod)?)
            }
        };
        let mut scene = Self {
            nodes: Vec::new(),
            http,
            rtmp,
            groups,
            registry,
            runtime: runtime.clone(),
            password,
            moto,
            place,
            folder,
            instances: 0,
        };
        say("starting the nodes");
        for n in 1..=wish.origins {
            scene.add(Role::Origin, &format!("origin-{n}"), 10 + n, &[])?;
        }
        for n in 1..=wish.edges {
            scene.add(Role::Edge, &format!("edge-{n}"), 20 + n, &[])?;
        }
        scene.wait_ready()?;
        Ok(scene)
    }

    /// Waits until every node is ready, those of the registry too.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(Node::wait_ready)?;
        self.registry.set().map_or(Ok(()), Set::wait_ready)
    }

    /// One more node, started, as the balancer's last target; `last` is the last byte of its address.
    pub(crate) fn add(&mut self, role: Role, name: &str, last: u8, tags: &[(&str, &str)]) -> anyhow::Result<usize> {
        self.add_with(role, name, last, tags, "")
    }

    /// The same, with more settings in its file.
    pub(crate) fn add_with(
        &mut self,
        role: Role,
        name: &str,
        last: u8,
        tags: &[(&str, &str)],
        settings: &str,
    ) -> anyhow::Result<usize> {
        let environment = environment(&self.moto, &self.groups);
        let folder = self.folder.path().join(name);
        let (name, settings) = (name.to_owned(), settings.to_owned());
        let mut tags = tags.to_vec();
        let secret = format!("secret:{REGISTRY_SECRET}");
        if self.registry.set().is_none() {
            tags.push(("headwater:registry", &secret));
        }
        let plan = Plan { name, role, last, tags: &tags, settings, environment, folder };
        let node = Node::new(&self.place, plan)?;
        match role {
            Role::Origin => self.rtmp.add(node.rtmp(), node.health()),
            Role::Edge => self.http.add(node.http(), node.health()),
            Role::Registry => anyhow::bail!("registry nodes are there from the start"),
        }
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.launch(index)?;
        Ok(index)
    }

    /// Kills the last node that was added, and its host goes with it.
    pub(crate) fn remove_last(&mut self) {
        let Some(node) = self.nodes.pop() else { return };
        self.groups.forget(node.id());
        self.rtmp.remove(node.rtmp());
        self.http.remove(node.http());
    }

    /// The group launches a new instance in the place of this node.
    pub(crate) fn launch(&mut self, index: usize) -> anyhow::Result<()> {
        self.instances += 1;
        let id = format!("i-0c10d{:012x}", self.instances);
        let node = self.nodes.get_mut(index).context("no such node")?;
        self.groups.forget(node.id());
        let metadata = std::sync::Arc::downgrade(node.metadata());
        let group = node.role.group().context("a node without a group")?;
        self.groups.launch(&id, group, move |target| {
            if let Some(metadata) = metadata.upgrade() {
                metadata.change(|s| s.target_lifecycle_state = Some(target.to_owned()));
            }
        });
        node.start(&id)
    }

    /// Launches a new instance in the place of this node, and waits until it serves.
    pub(crate) fn relaunch(&mut self, index: usize) -> anyhow::Result<()> {
        self.launch(index)?;
        self.nodes[index].wait_ready()
    }

    /// The nodes with this role, by index.
    pub(crate) fn all(&self, role: Role) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].role == role).collect()
    }

    /// The index of the node with this name, if it is none of the registry's.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node with this name, any there is.
    pub(crate) fn node(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let members = self.registry.set_mut().map_or(&mut [][..], Set::members_mut);
        let mut all = self.nodes.iter_mut().chain(members);
        all.find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// The address of this program, as the nodes see it.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.place.gateway().into()
    }

    /// Where to publish, through the balancer.
    pub(crate) fn publish_url(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}", reachable(self.rtmp.address()))
    }

    /// Where viewers go, through the balancer; `path` begins with a slash.
    pub(crate) fn page_url(&self, path: &str) -> String {
        format!("http://{}{path}", reachable(self.http.address()))
    }

    /// The folder with all files of the nodes.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// Where the nodes' AWS is.
fn environment(moto: &Moto, groups: &Groups) -> Vec<(&'static str, String)> {
    let mut environment = moto.environment();
    environment.push(("AWS_ENDPOINT_URL_AUTO_SCALING", format!("http://{}", groups.address())));
    environment
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// A listener on this port or, if it is taken, one of the next.
fn free(ip: IpAddr, port: u16) -> anyhow::Result<TcpListener> {
    let mut tries = (port..=port.saturating_add(20)).map(|port| TcpListener::bind((ip, port)));
    tries.find_map(Result::ok).with_context(|| format!("no free port from {port} on"))
}

/// The secret with the connection string of one database.
const REGISTRY_SECRET: &str = "cloud/registry";
