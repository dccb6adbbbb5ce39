//! A proxy to a database that records when each command was received and forwarded. Its link can be
//! cut, or stalled with all connections open.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::mongo_wire::Message;

/// State of the link between clients and database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Commands and replies are forwarded.
    Open,
    /// Connections are closed, and new ones are refused.
    Cut,
    /// Connections stay open and nothing is forwarded until the link is up again.
    Stalled,
}

/// A command that was forwarded to the database.
#[derive(Debug, Clone)]
pub struct Passed {
    /// When the proxy received it: before `forwarded_at` by as long as the link was stalled.
    pub asked: Instant,
    /// When the proxy forwarded it.
    pub at: Instant,
    /// Name of the command, such as `findAndModify`.
    pub name: String,
}

/// The running proxy. Closes all connections on drop.
#[derive(Debug)]
pub struct Toll {
    port: u16,
    way: watch::Sender<Way>,
    passed: Arc<Mutex<Vec<Passed>>>,
    task: JoinHandle<()>,
}

impl Toll {
    /// Starts a proxy to the database at `server`.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(runtime: &Handle, server: SocketAddr) -> anyhow::Result<Self> {
        let listener = listen(0)?;
        let port = listener.local_addr()?.port();
        let (way, passed) = (watch::Sender::new(Way::Open), Arc::default());
        let task = runtime.spawn(serve(listener, server, way.clone(), Arc::clone(&passed)));
        Ok(Self { port, way, passed, task })
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Changes the state of the link, also for open connections.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// All commands forwarded so far, in order.
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Toll {
    fn drop(&mut self) {
        self.way.send_replace(Way::Cut);
        self.task.abort();
    }
}

fn listen(port: u16) -> anyhow::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // Closed connections may be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(1_024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(
    listener: std::net::TcpListener,
    server: SocketAddr,
    way: watch::Sender<Way>,
    passed: Arc<Mutex<Vec<Passed>>>,
) {
    let mut ways = way.subscribe();
    let port = listener.local_addr().map_or(0, |at| at.port());
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        let cut = *ways.borrow_and_update() == Way::Cut;
        match (&listener, cut) {
            (Some(_), true) => listener = None,
            (None, false) => listener = listen(port).ok().and_then(|listener| TcpListener::from_std(listener).ok()),
            _ => {}
        }
        let Some(open) = &listener else {
            if ways.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            _ = ways.changed() => {}
            Ok((client, _)) = open.accept() => {
                let (mut cut, ways, passed) = (way.subscribe(), way.subscribe(), Arc::clone(&passed));
                tokio::spawn(async move {
                    tokio::select! {
                        // A client that disconnects is not an error.
                        _ = carry(client, server, ways, &passed) => {}
                        _ = cut.wait_for(|way| *way == Way::Cut) => {}
                    }
                });
            }
        }
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut ways: watch::Receiver<Way>,
    passed: &Mutex<Vec<Passed>>,
) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let mut reply_link_rx = ways.clone();
    let requests = async {
        loop {
            let question = Message::read(&mut from_client).await?;
            let asked = Instant::now();
            ways.wait_for(|way| *way == Way::Open).await?;
            let name = question.document()?.keys().next().cloned().unwrap_or_default();
            let command = Passed { asked, at: Instant::now(), name };
            passed.lock().unwrap_or_else(PoisonError::into_inner).push(command);
            question.write(&mut to_server).await?;
        }
    };
    let replies = async {
        loop {
            let answer = Message::read(&mut from_server).await?;
            reply_link_rx.wait_for(|way| *way == Way::Open).await?;
            answer.write(&mut to_client).await?;
        }
    };
    tokio::select! {
        done = requests => done,
        done = replies => done,
    }
}
