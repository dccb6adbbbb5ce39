//! Clients with addresses of their own, which are not loopback: they have a share of each pool like
//! clients on the internet.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

/// Address of the attacker with this number, below 40,000.
pub(crate) fn attacker(number: usize) -> Ipv4Addr {
    let (high, low) = ((number / 200) as u8, (number % 200) as u8);
    Ipv4Addr::new(10, 99, 1 + high, 1 + low)
}

/// Address of a client that does no harm and comes for the first time; `number` below 200.
pub(crate) fn newcomer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 250, 1 + number)
}

/// Opens a connection from an address.
///
/// # Errors
/// If the server does not accept it in time.
pub(crate) fn connect_from(source: Ipv4Addr, server: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    socket.connect_timeout(&server.into(), CONNECT_TIMEOUT).with_context(|| format!("from {source} to {server}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(stream)
}

/// Raises this program's limit of open files to the maximum: attackers need more than most
/// programs.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With the old limit, attacks that need more fail.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// For connections, reads and writes on the same machine while it is attacked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
