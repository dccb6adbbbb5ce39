//! Three registry nodes: each runs the built `headwaterd` on its own host, with a mongod as its
//! child. The other nodes find them by their tags.
//!
//! Without a real mongod, each runs the stand-in of `tests/mongod`, and all of them share one
//! FerretDB. Then this shows how Headwater reacts to the death of a primary, but nothing about
//! MongoDB's elections and replication.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use headwater_tests::engine::program_path;
use headwater_tests::mongo_wire::Message;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::wait::{self, WAIT_TIMEOUT};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::Database;
use crate::network;
use crate::node::{CLUSTER_NAME, Node, NodeSpec, Role};

/// What a replica set is created in.
pub(crate) struct ReplicaSetContext<'a> {
    pub(crate) network: &'a network::Network,
    pub(crate) moto: &'a Moto,
    /// Environment variables with the AWS endpoints.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Folder for the files of all nodes.
    pub(crate) folder: &'a Path,
    pub(crate) runtime: &'a Handle,
}

/// The database program that the nodes run.
#[derive(Debug)]
pub(crate) enum Mongod {
    /// A real mongod at this path.
    Real(PathBuf),
    /// The stand-in, in front of this database.
    StandIn(Database),
}

impl std::fmt::Display for Mongod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Real(program) => write!(f, "with mongod {}", program.display()),
            Self::StandIn(_) => f.write_str(
                "with a mongod stand-in in front of one FerretDB, which does not replicate \
                 (set HEADWATER_TEST_MONGOD to use a real mongod)",
            ),
        }
    }
}

/// The registry nodes, running or not. Dropping it removes them with their hosts.
pub(crate) struct ReplicaSet {
    members: Vec<Node>,
    /// Instance ids, which do not change on a restart.
    instance_ids: Vec<String>,
    password: String,
    runtime: Handle,
    /// The database behind the stand-ins. Dropped last.
    _database: Option<Database>,
}

/// State of a member, from its `hello` reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    Primary,
    Secondary,
    /// Reachable, but neither primary nor secondary.
    Other,
    Unreachable,
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Other => "neither primary nor secondary",
            Self::Unreachable => "unreachable",
        })
    }
}

impl ReplicaSet {
    /// Starts all nodes at once and waits until one of them is the primary.
    pub(crate) fn start(context: ReplicaSetContext<'_>, mongod: Mongod) -> anyhow::Result<Self> {
        let password = format!("{:032x}", rand::random::<u128>());
        let login = serde_json::json!({ "username": USER, "password": password });
        context.moto.create_secret(&format!("headwater/{CLUSTER_NAME}/registry"), &login.to_string())?;
        let mut environment = context.environment;
        let (mongod, database) = match mongod {
            Mongod::Real(program) => (program, None),
            Mongod::StandIn(database) => {
                environment.push(("STAND_IN_DATABASE", database.uri().to_owned()));
                let users = context.folder.join("stand-in-users");
                environment.push(("STAND_IN_USERS", users.to_string_lossy().into_owned()));
                (program_path("headwater-mongod-stand-in")?, Some(database))
            }
        };
        let subnet = context.moto.create_subnet(&context.network.cidr())?;
        let (mut members, mut instance_ids) = (Vec::new(), Vec::new());
        for (n, last) in HOST_BYTES.iter().enumerate() {
            let name = format!("registry-{}", n + 1);
            let spec = NodeSpec {
                role: Role::Registry,
                last: *last,
                tags: &[],
                settings: format!("[mongod]\nport = {PORT}\nprogram = {mongod:?}\n"),
                environment: environment.clone(),
                folder: context.folder.join(&name),
                name,
            };
            let tags = [("headwater:role", Role::Registry.tag_value()), ("headwater:cluster", CLUSTER_NAME)];
            instance_ids.push(context.moto.run_instance_at(
                &subnet,
                &context.network.address(*last).to_string(),
                &tags,
            )?);
            members.push(Node::new(context.network, spec)?);
        }
        let mut set = Self { members, instance_ids, password, runtime: context.runtime.clone(), _database: database };
        set.start_all()?;
        set.wait_primary()?;
        Ok(set)
    }

    /// The members, sorted by name.
    pub(crate) fn members(&self) -> &[Node] {
        &self.members
    }

    /// The members, sorted by name.
    pub(crate) fn members_mut(&mut self) -> &mut [Node] {
        &mut self.members
    }

    /// The password that all nodes of the cluster use.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Kills daemon and database of all members at once.
    pub(crate) fn kill_all(&mut self) {
        self.members.iter_mut().for_each(Node::kill);
    }

    /// Starts the members that are not running.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|at| self.start_member(at))
    }

    /// Starts a member that is not running: the same instance, with its data.
    pub(crate) fn start_member(&mut self, at: usize) -> anyhow::Result<()> {
        let (Some(member), Some(id)) = (self.members.get_mut(at), self.instance_ids.get(at)) else {
            anyhow::bail!("no such member")
        };
        if member.is_running() { Ok(()) } else { member.start(id) }
    }

    /// Waits until every member is primary or secondary and its node is ready.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|at| self.wait_member(at).map(drop))
    }

    /// Waits until a started member is primary or secondary and its node is
    /// ready; returns its state.
    pub(crate) fn wait_member(&self, at: usize) -> anyhow::Result<MemberState> {
        let member = &self.members[at];
        let has_logged_ready = |daemon: &Process| daemon.lines().iter().any(|line| line.contains("node ready"));
        wait::until_within(STARTUP_TIMEOUT, &format!("{} to be ready", member.name), || {
            let state = self.member_state(at);
            let serves = matches!(state, MemberState::Primary | MemberState::Secondary);
            (serves && member.daemon().is_ok_and(has_logged_ready)).then_some(state)
        })
    }

    /// Waits until there is a primary and returns its index.
    pub(crate) fn wait_primary(&self) -> anyhow::Result<usize> {
        wait::until_within(STARTUP_TIMEOUT, "a primary", || self.primary())
    }

    /// The index of the member that reports itself as primary.
    pub(crate) fn primary(&self) -> Option<usize> {
        (0..self.members.len()).find(|at| self.member_state(*at) == MemberState::Primary)
    }

    /// Asks a member for its state.
    pub(crate) fn member_state(&self, at: usize) -> MemberState {
        let address = self.members[at].host().socket_address(PORT);
        let reply = self.runtime.block_on(async { tokio::time::timeout(HELLO_TIMEOUT, hello(address)).await });
        let Ok(Ok(hello)) = reply else { return MemberState::Unreachable };
        let flag = |field| hello.get_bool(field).unwrap_or_default();
        match (flag("isWritablePrimary"), flag("secondary")) {
            (true, _) => MemberState::Primary,
            (_, true) => MemberState::Secondary,
            _ => MemberState::Other,
        }
    }

    /// All documents of a registry collection, read from the primary as the nodes do.
    ///
    /// # Errors
    /// If there is no primary, or it does not answer.
    pub(crate) fn documents(&self, collection: &str) -> anyhow::Result<Vec<Document>> {
        let primary = self.members[self.primary().context("no primary")?].host().socket_address(PORT);
        let uri = format!(
            "mongodb://{USER}:{}@{primary}/?authSource=admin&directConnection=true&serverSelectionTimeoutMS=2000",
            self.password
        );
        self.runtime.block_on(async {
            let client = Client::with_uri_str(uri).await?;
            let database = client.database("headwater");
            let mut found = database.collection::<Document>(collection).find(doc! {}).await?;
            let mut all = Vec::new();
            while found.advance().await? {
                all.push(found.deserialize_current()?);
            }
            drop(found);
            client.shutdown().immediate(true).await;
            Ok(all)
        })
    }
}

/// Sends `hello` to a mongod; needs no login.
async fn hello(address: SocketAddr) -> std::io::Result<Document> {
    let mut stream = TcpStream::connect(address).await?;
    Message::command(&doc! { "hello": 1, "$db": "admin" })?.write(&mut stream).await?;
    Message::read(&mut stream).await?.document()
}

/// Last bytes of the members' addresses.
const HOST_BYTES: [u8; 3] = [31, 32, 33];
const PORT: u16 = 27_017;
/// Must differ from FerretDB's own user.
const USER: &str = "nodes";
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// Three nodes, each of which waits for the one before.
const STARTUP_TIMEOUT: Duration = WAIT_TIMEOUT.saturating_mul(3);
