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
pub enum LinkState {
    /// Commands and replies are forwarded.
    Open,
    /// Connections are closed, and new ones are refused.
    Down,
    /// Connections stay open and nothing is forwarded until the link is up again.
    Stalled,
}

/// A command that was forwarded to the database.
#[derive(Debug, Clone)]
pub struct ForwardedCommand {
    /// When the proxy received it: before `forwarded_at` by as long as the link was stalled.
    pub received_at: Instant,
    /// When the proxy forwarded it.
    pub forwarded_at: Instant,
    /// Name of the command, such as `findAndModify`.
    pub name: String,
}

/// The running proxy. Closes all connections on drop.
#[derive(Debug)]
pub struct TappedProxy {
    port: u16,
    link_tx: watch::Sender<LinkState>,
    forwarded: Arc<Mutex<Vec<ForwardedCommand>>>,
    task: JoinHandle<()>,
}

impl TappedProxy {
    /// Starts a proxy to the database at `server`.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(runtime: &Handle, server: SocketAddr) -> anyhow::Result<Self> {
        let listener = listen(0)?;
        let port = listener.local_addr()?.port();
        let (link_tx, forwarded) = (watch::Sender::new(LinkState::Open), Arc::default());
        let task = runtime.spawn(serve(listener, server, link_tx.clone(), Arc::clone(&forwarded)));
        Ok(Self { port, link_tx, forwarded, task })
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Changes the state of the link, also for open connections.
    pub fn set_link(&self, state: LinkState) {
        self.link_tx.send_replace(state);
    }

    /// All commands forwarded so far, in order.
    pub fn forwarded(&self) -> Vec<ForwardedCommand> {
        self.forwarded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TappedProxy {
    fn drop(&mut self) {
        self.link_tx.send_replace(LinkState::Down);
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
    link_tx: watch::Sender<LinkState>,
    forwarded: Arc<Mutex<Vec<ForwardedCommand>>>,
) {
    let mut link_rx = link_tx.subscribe();
    let port = listener.local_addr().map_or(0, |at| at.port());
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        let is_down = *link_rx.borrow_and_update() == LinkState::Down;
        match (&listener, is_down) {
            (Some(_), true) => listener = None,
            (None, false) => listener = listen(port).ok().and_then(|listener| TcpListener::from_std(listener).ok()),
            _ => {}
        }
        let Some(open) = &listener else {
            if link_rx.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            _ = link_rx.changed() => {}
            Ok((client, _)) = open.accept() => {
                let (mut down_rx, link_rx, forwarded) = (link_tx.subscribe(), link_tx.subscribe(), Arc::clone(&forwarded));
                tokio::spawn(async move {
                    tokio::select! {
                        // A client that disconnects is not an error.
                        _ = forward(client, server, link_rx, &forwarded) => {}
                        _ = down_rx.wait_for(|state| *state == LinkState::Down) => {}
                    }
                });
            }
        }
    }
}

async fn forward(
    client: TcpStream,
    server: SocketAddr,
    mut link_rx: watch::Receiver<LinkState>,
    forwarded: &Mutex<Vec<ForwardedCommand>>,
) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let mut reply_link_rx = link_rx.clone();
    let requests = async {
        loop {
            let message = Message::read(&mut from_client).await?;
            let received_at = Instant::now();
            link_rx.wait_for(|state| *state == LinkState::Open).await?;
            let name = message.document()?.keys().next().cloned().unwrap_or_default();
            let command = ForwardedCommand { received_at, forwarded_at: Instant::now(), name };
            forwarded.lock().unwrap_or_else(PoisonError::into_inner).push(command);
            message.write(&mut to_server).await?;
        }
    };
    let replies = async {
        loop {
            let reply = Message::read(&mut from_server).await?;
            reply_link_rx.wait_for(|state| *state == LinkState::Open).await?;
            reply.write(&mut to_client).await?;
        }
    };
    tokio::select! {
        done = requests => done,
        done = replies => done,
    }
}
