//! Three registry nodes: each the built `headwaterd` on a host of its own, with a mongod that it starts and ends. The other nodes
//! find them by their tags.
//!
//! Where no real mongod is named, each runs the stand-in of `tests/mongod`, and all of these stand on one FerretDB: then this
//! shows what Headwater does when a primary dies, and nothing of MongoDB's elections and copies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use headwater_tests::engine::program;
use headwater_tests::mongo_wire::Message;
use headwater_tests::moto::Moto;
use headwater_tests::process::Process;
use headwater_tests::wait::{self, PATIENCE};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::Database;
use crate::node::{CLUSTER, Node, Plan, Role};
use crate::place;

/// Where a set is made.
pub(crate) struct Place<'a> {
    pub(crate) network: &'a place::Place,
    pub(crate) moto: &'a Moto,
    /// Where the nodes' AWS is.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The files of all nodes go below.
    pub(crate) folder: &'a Path,
    pub(crate) runtime: &'a Handle,
}

/// What its nodes run.
#[derive(Debug)]
pub(crate) enum Mongod {
    /// This program.
    Real(PathBuf),
    /// The stand-in, in front of this database.
    StandIn(Database),
}

impl std::fmt::Display for Mongod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Real(program) => write!(f, "{} is their mongod", program.display()),
            Self::StandIn(_) => f.write_str(
                "each runs a stand-in for mongod in front of one FerretDB, which replicates nothing (HEADWATER_TEST_MONGOD names a real one)",
            ),
        }
    }
}

/// The registry nodes, running or not. Dropped = gone, with their hosts.
pub(crate) struct Set {
    members: Vec<Node>,
    /// Of their instances, which stay the same.
    ids: Vec<String>,
    password: String,
    runtime: Handle,
    /// What the stand-ins stand on. Ends last.
    _database: Option<Database>,
}

/// How a member says that it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Primary,
    Secondary,
    /// Up, and neither.
    Waiting,
    Silent,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Waiting => "neither primary nor secondary",
            Self::Silent => "silent",
        })
    }
}

impl Set {
    /// Launches the nodes, all at once, and waits until one is the primary.
    pub(crate) fn start(place: Place<'_>, mongod: Mongod) -> anyhow::Result<Self> {
        let password = format!("{:032x}", rand::random::<u128>());
        let login = serde_json::json!({ "username": USER, "password": password });
        place.moto.secret(&format!("headwater/{CLUSTER}/registry"), &login.to_string())?;
        let mut environment = place.environment;
        let (mongod, database) = match mongod {
            Mongod::Real(program) => (program, None),
            Mongod::StandIn(database) => {
                environment.push(("STAND_IN_DATABASE", database.uri().to_owned()));
                let users = place.folder.join("stand-in-users");
                environment.push(("STAND_IN_USERS", users.to_string_lossy().into_owned()));
                (program("headwater-mongod-stand-in")?, Some(database))
            }
        };
        let subnet = place.moto.network(&place.network.range())?;
        let (mut members, mut ids) = (Vec::new(), Vec::new());
        for (n, last) in LAST.iter().enumerate() {
            let name = format!("registry-{}", n + 1);
            let plan = Plan {
                role: Role::Registry,
                last: *last,
                tags: &[],
                settings: format!("[mongod]\nport = {PORT}\nprogram = {mongod:?}\n"),
                environment: environment.clone(),
                folder: place.folder.join(&name),
                name,
            };
            let tags = [("headwater:role", Role::Registry.word()), ("headwater:cluster", CLUSTER)];
            ids.push(place.moto.instance_at(&subnet, &place.network.address(*last).to_string(), &tags)?);
            members.push(Node::new(place.network, plan)?);
        }
        let mut set = Self { members, ids, password, runtime: place.runtime.clone(), _database: database };
        set.start_all()?;
        set.wait_primary()?;
        Ok(set)
    }

    /// All of them, in order of their names.
    pub(crate) fn members(&self) -> &[Node] {
        &self.members
    }

    /// The same.
    pub(crate) fn members_mut(&mut self) -> &mut [Node] {
        &mut self.members
    }

    /// What all nodes of the cluster log in with.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Daemon and database of all members at once.
    pub(crate) fn kill_all(&mut self) {
        self.members.iter_mut().for_each(Node::kill);
    }

    /// Starts those that do not run.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|at| self.start_member(at))
    }

    /// Starts a member that does not run: the same instance, with its data.
    pub(crate) fn start_member(&mut self, at: usize) -> anyhow::Result<()> {
        let (Some(member), Some(id)) = (self.members.get_mut(at), self.ids.get(at)) else {
            anyhow::bail!("there is no such member")
        };
        if member.is_running() { Ok(()) } else { member.start(id) }
    }

    /// Waits until all members are in the set and in the registry that they run.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<()> {
        (0..self.members.len()).try_for_each(|at| self.wait_member(at).map(drop))
    }

    /// Waits until a member that was started is primary or secondary and its node is ready; says which.
    pub(crate) fn wait_member(&self, at: usize) -> anyhow::Result<Standing> {
        let member = &self.members[at];
        let says_ready = |daemon: &Process| daemon.lines().iter().any(|line| line.contains("node ready"));
        wait::until_within(SLOW, &format!("{} to be ready", member.name), || {
            let standing = self.standing(at);
            let serves = matches!(standing, Standing::Primary | Standing::Secondary);
            (serves && member.daemon().is_ok_and(says_ready)).then_some(standing)
        })
    }

    /// Waits until there is a primary; its index.
    pub(crate) fn wait_primary(&self) -> anyhow::Result<usize> {
        wait::until_within(SLOW, "a primary", || self.primary())
    }

    /// The index of the one that says that it is the primary.
    pub(crate) fn primary(&self) -> Option<usize> {
        (0..self.members.len()).find(|at| self.standing(*at) == Standing::Primary)
    }

    /// How this member stands, in its own words.
    pub(crate) fn standing(&self, at: usize) -> Standing {
        let address = self.members[at].host().at(PORT);
        let asked = self.runtime.block_on(async { tokio::time::timeout(ANSWER, hello(address)).await });
        let Ok(Ok(hello)) = asked else { return Standing::Silent };
        let says = |field| hello.get_bool(field).unwrap_or_default();
        match (says("isWritablePrimary"), says("secondary")) {
            (true, _) => Standing::Primary,
            (_, true) => Standing::Secondary,
            _ => Standing::Waiting,
        }
    }

    /// All documents of a collection of the registry, read from the primary as the nodes do.
    ///
    /// # Errors
    /// If there is no primary, or it does not answer.
    pub(crate) fn documents(&self, collection: &str) -> anyhow::Result<Vec<Document>> {
        let primary = self.members[self.primary().context("no primary")?].host().at(PORT);
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

/// Asks a mongod how it stands; that needs no login.
async fn hello(address: SocketAddr) -> std::io::Result<Document> {
    let mut stream = TcpStream::connect(address).await?;
    Message::command(&doc! { "hello": 1, "$db": "admin" })?.write(&mut stream).await?;
    Message::read(&mut stream).await?.document()
}

/// Last bytes of the members' addresses.
const LAST: [u8; 3] = [31, 32, 33];
const PORT: u16 = 27_017;
/// Another name than that of FerretDB's own user.
const USER: &str = "nodes";
const ANSWER: Duration = Duration::from_secs(1);
/// Each of three nodes waits for the one before.
const SLOW: Duration = PATIENCE.saturating_mul(3);
