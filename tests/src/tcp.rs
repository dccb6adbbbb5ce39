//! TCP connections from an address of the caller's choice: servers limit what one address may do.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, SockAddr, Socket, Type};

/// Opens a connection from an address of this machine.
///
/// # Errors
/// If the server does not accept it within [`CONNECT_TIMEOUT`].
pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    socket.connect_timeout(&server.into(), CONNECT_TIMEOUT).with_context(|| format!("from {source} to {server}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}

/// For connections, reads and writes on a machine that may be under attack.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
