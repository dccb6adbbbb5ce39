//! A simulated replica set in front of one database: its members answer hello as members of a set
//! do and forward all other commands to the database, unless they are set to fail. Tests how
//! clients react to elections and failures; proves nothing about MongoDB itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use mongodb::bson::{Document, doc};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::mongo_wire::Message;

/// Number of members of every set.
pub const MEMBER_COUNT: usize = 3;

/// A set of three members, of which the first is the initial primary. All members stop on drop.
#[derive(Debug)]
pub struct FakeReplicaSet {
    uri: String,
    state: Arc<State>,
    _members: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    database: SocketAddr,
    hosts: Vec<String>,
    /// Index of the primary; [`MEMBERS`] if there is none.
    primary: AtomicUsize,
    /// Error code that answers writes; 0 if writes succeed.
    write_error_code: AtomicI32,
    /// Number of forwarded writes, by member.
    writes: [AtomicUsize; MEMBER_COUNT],
    /// Delay of the answer to a write after the write is done.
    write_delay_ms: AtomicU64,
    /// Delay of the answer to a read.
    read_delay_ms: AtomicU64,
}

impl FakeReplicaSet {
    /// Starts a set in front of the database with this connection string.
    ///
    /// # Errors
    /// If there is no port for a member.
    pub fn start(runtime: &Handle, database: &str) -> anyhow::Result<Self> {
        let (login, server) = split_uri(database)?;
        let listeners: Vec<_> = (0..MEMBER_COUNT)
            .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<io::Result<_>>()?;
        let hosts: Vec<String> =
            listeners.iter().map(|l| l.local_addr().map(|at| at.to_string())).collect::<io::Result<_>>()?;
        let uri = format!("mongodb://{login}{}/?replicaSet={SET_NAME}", hosts.join(","));
        let state = Arc::new(State {
            database: server,
            hosts,
            primary: AtomicUsize::new(0),
            write_error_code: AtomicI32::new(0),
            writes: Default::default(),
            write_delay_ms: AtomicU64::new(0),
            read_delay_ms: AtomicU64::new(0),
        });
        let _entered = runtime.enter();
        let mut members = JoinSet::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            members.spawn(serve(TcpListener::from_std(listener)?, index, Arc::clone(&state)));
        }
        Ok(Self { uri, state, _members: members })
    }

    /// Connection string of the set, including the password.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Makes this member the primary; `None` simulates a lost majority.
    pub fn elect(&self, primary: Option<usize>) {
        self.state.primary.store(primary.unwrap_or(MEMBER_COUNT), Ordering::SeqCst);
    }

    /// Makes the primary answer writes with this error code; `None` lets writes succeed again.
    pub fn fail_writes(&self, code: Option<i32>) {
        self.state.write_error_code.store(code.unwrap_or_default(), Ordering::SeqCst);
    }

    /// Delays the answers to writes.
    pub fn delay_writes(&self, by: Duration) {
        self.state.write_delay_ms.store(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Delays the answers to reads.
    pub fn delay_reads(&self, by: Duration) {
        self.state.read_delay_ms.store(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Number of writes that this member has forwarded.
    pub fn writes(&self, member: usize) -> usize {
        self.state.writes.get(member).map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

/// Splits a connection string into `user:password@`, or an empty string, and its one server.
///
/// # Errors
/// If it does not have exactly one server, given by IP address.
pub fn split_uri(uri: &str) -> anyhow::Result<(String, SocketAddr)> {
    let (_, rest) = uri.split_once("://").context("not a connection string")?;
    let (login, rest) =
        rest.rsplit_once('@').map_or((String::new(), rest), |(login, rest)| (format!("{login}@"), rest));
    let server =
        rest.split('/').next().unwrap_or_default().parse().context("not exactly one server with an IP address")?;
    Ok((login, server))
}

async fn serve(listener: TcpListener, member: usize, state: Arc<State>) {
    let mut clients = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // A client that disconnects is not an error.
        clients.spawn(async move { drop(proxy_connection(client, member, &state).await) });
    }
}

async fn proxy_connection(mut client: TcpStream, member: usize, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(state.database).await?;
    server.set_nodelay(true)?;
    loop {
        let command = Message::read(&mut client).await?;
        let name = command.document()?.keys().next().cloned().unwrap_or_default();
        if let Some(error) = error_reply(&name, member, state) {
            command.reply(&error)?.write(&mut client).await?;
            continue;
        }
        command.write(&mut server).await?;
        let mut reply = Message::read(&mut server).await?;
        if HELLO_COMMANDS.contains(&name.as_str()) {
            let mut hello = reply.document()?;
            rewrite_hello(&mut hello, member, state);
            reply = command.reply(&hello)?;
        }
        if WRITE_COMMANDS.contains(&name.as_str()) {
            state.writes[member].fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(state.write_delay_ms.load(Ordering::SeqCst))).await;
        }
        if READ_COMMANDS.contains(&name.as_str()) {
            tokio::time::sleep(Duration::from_millis(state.read_delay_ms.load(Ordering::SeqCst))).await;
        }
        reply.write(&mut client).await?;
    }
}

fn error_reply(name: &str, member: usize, state: &State) -> Option<Document> {
    let is_member_command = |name| HELLO_COMMANDS.contains(&name) || SESSION_COMMANDS.contains(&name);
    if state.primary.load(Ordering::SeqCst) != member && !is_member_command(name) {
        let mut reply = error_document(10_107, "NotWritablePrimary", "not primary");
        // The driver retries a command with this label once.
        reply.insert("errorLabels", vec!["RetryableWriteError"]);
        return Some(reply);
    }
    let code = state.write_error_code.load(Ordering::SeqCst);
    let what = if code == OUT_OF_DISK_SPACE { "OutOfDiskSpace" } else { "Scripted" };
    (code != 0 && WRITE_COMMANDS.contains(&name)).then(|| error_document(code, what, "refused by the test"))
}

fn rewrite_hello(hello: &mut Document, member: usize, state: &State) {
    let is_primary = state.primary.load(Ordering::SeqCst) == member;
    hello.remove("topologyVersion");
    for (field, value) in [("isWritablePrimary", is_primary), ("ismaster", is_primary), ("secondary", !is_primary)] {
        hello.insert(field, value);
    }
    hello.insert("setName", SET_NAME);
    hello.insert("setVersion", 1);
    hello.insert("hosts", state.hosts.clone());
    hello.insert("me", &state.hosts[member]);
}

fn error_document(code: i32, name: &str, message: &str) -> Document {
    doc! { "ok": 0, "code": code, "codeName": name, "errmsg": message }
}

/// Error code of a server whose disk is full.
pub const OUT_OF_DISK_SPACE: i32 = 14_031;
const SET_NAME: &str = "test-set";
const HELLO_COMMANDS: [&str; 3] = ["hello", "isMaster", "ismaster"];
const SESSION_COMMANDS: [&str; 4] = ["saslStart", "saslContinue", "endSessions", "ping"];
const READ_COMMANDS: [&str; 2] = ["find", "aggregate"];
const WRITE_COMMANDS: [&str; 5] = ["insert", "update", "delete", "findAndModify", "createIndexes"];
