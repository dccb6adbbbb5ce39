//! The pair of addresses of a datagram, and the kernel's choice of a source address.
//!
//! Received datagrams yield a pair, and replies are sent to a pair. Must not know the socket.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Type};

/// The remote and the local address of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressPair {
    /// The client's address; IPv4 is not mapped to IPv6.
    pub(crate) remote: SocketAddr,
    /// IPv4 is mapped to IPv6. Unspecified if the kernel is to select the source address.
    pub(super) local: Ipv6Addr,
    /// 0 unless the local address is link-local.
    pub(super) interface_index: u32,
}

impl AddressPair {
    /// Returns this pair without the local address if the kernel would select that address anyway;
    /// messages then need no `PKTINFO`. Queries the kernel, which takes some microseconds; if the
    /// query fails, returns the pair unchanged.
    pub(crate) fn without_default_source(&self) -> Self {
        match kernel_source_address(self.remote) {
            Ok(chosen) if chosen == self.local && self.interface_index == 0 => {
                Self { local: Ipv6Addr::UNSPECIFIED, ..*self }
            }
            _ => *self,
        }
    }

    /// Creates a pair whose source address the kernel selects.
    #[cfg(test)]
    pub(crate) fn to(remote: SocketAddr) -> Self {
        Self { remote, local: Ipv6Addr::UNSPECIFIED, interface_index: 0 }
    }
}

/// Returns the source address that the kernel selects for a destination. Sends nothing.
fn kernel_source_address(remote: SocketAddr) -> io::Result<Ipv6Addr> {
    let socket = socket2::Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&remote.into())?;
    Ok(match socket.local_addr()?.as_socket().map(|local| local.ip()) {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
        None => Ipv6Addr::UNSPECIFIED,
    })
}
