//! Opens dual-stack (IPv4 and IPv6) TCP listeners for the gateways and the web server.
//!
//! Must not know any protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// A TCP or UDP port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address} for {service}")]
pub struct ListenError {
    /// `http`, `https`, `rtmp`, `rtmps`, `webrtc` or `health`.
    pub service: &'static str,
    /// The configured address.
    pub address: SocketAddr,
    /// The cause.
    pub source: io::Error,
}

/// Length of the kernel's queue of connections not yet accepted; capped by `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Listens on `address` and returns the listener with its local address. `[::]` also accepts IPv4,
/// and falls back to `0.0.0.0` on a host without IPv6.
pub(crate) fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listener = open(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    listener.map(|(local, listener)| (listener, local)).map_err(|source| ListenError { service: what, address, source })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(e)
            if e.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.is_ipv6() && address.ip().is_unspecified() =>
        {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Allows a restart while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unspecified_ipv6_address_accepts_ipv4() {
        let (listener, local) = listen("http", "[::]:0".parse().unwrap()).unwrap();
        let connect = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, local.port()));
        let (accepted, connected) = tokio::join!(listener.accept(), connect);
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[tokio::test]
    async fn port_in_use_is_an_error() {
        let (_first, local) = listen("http", "127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = listen("http", local).unwrap_err();
        assert_eq!((refused.address, refused.source.kind()), (local, io::ErrorKind::AddrInUse));
    }
}
