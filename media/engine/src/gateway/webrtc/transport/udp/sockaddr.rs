//! Converts addresses to and from the structures of the kernel: `sockaddr`, and the `PKTINFO`
//! control messages that carry the local address of a datagram.
//!
//! Plain functions. Must not know the socket.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::gateway::webrtc::transport::udp::address_pair::AddressPair;
use crate::gateway::webrtc::transport::udp::cmsg;

/// The address families of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv6, and IPv4 as mapped addresses.
    DualStack,
    /// IPv4 only: the host has no IPv6.
    V4,
}

/// A `sockaddr` of either family with all bytes zero.
pub(super) const EMPTY: libc::sockaddr_in6 = libc::sockaddr_in6 {
    sin6_family: 0,
    sin6_port: 0,
    sin6_flowinfo: 0,
    sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
    sin6_scope_id: 0,
};

// An IPv4 address occupies the first fields of a `sockaddr_in6`: family, port, and the address in
// place of the flow label.
const _: () = {
    assert!(offset_of!(libc::sockaddr_in, sin_family) == offset_of!(libc::sockaddr_in6, sin6_family));
    assert!(offset_of!(libc::sockaddr_in, sin_port) == offset_of!(libc::sockaddr_in6, sin6_port));
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == offset_of!(libc::sockaddr_in6, sin6_flowinfo));
    assert!(size_of::<libc::in_addr>() == size_of::<u32>());
};

/// Writes the destination address of a message to `name`, which must be [`EMPTY`]. Returns its
/// length in bytes.
pub(super) fn write(name: &mut libc::sockaddr_in6, remote: SocketAddr, family: Family) -> libc::socklen_t {
    name.sin6_port = remote.port().to_be();
    let ip = match (remote.ip(), family) {
        (IpAddr::V4(v4), Family::V4) => {
            name.sin6_family = libc::AF_INET as libc::sa_family_t;
            name.sin6_flowinfo = u32::from_ne_bytes(v4.octets());
            return size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        (IpAddr::V4(v4), Family::DualStack) => v4.to_ipv6_mapped(),
        (IpAddr::V6(v6), _) => v6,
    };
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_addr.s6_addr = ip.octets();
    if let SocketAddr::V6(v6) = remote {
        name.sin6_scope_id = v6.scope_id();
    }
    size_of::<libc::sockaddr_in6>() as libc::socklen_t
}

/// Returns the source address of a received datagram; IPv4 is not mapped to IPv6.
pub(super) fn read(name: &libc::sockaddr_in6) -> SocketAddr {
    let port = u16::from_be(name.sin6_port);
    if i32::from(name.sin6_family) == libc::AF_INET {
        return SocketAddr::from((name.sin6_flowinfo.to_ne_bytes(), port));
    }
    let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
    match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, port)),
        None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
    }
}

/// Writes the source address of a message, unless the kernel selects it.
pub(super) fn write_source(
    encoder: &mut cmsg::Encoder<'_>,
    pair: &AddressPair,
    family: Family,
) -> Result<(), cmsg::BufferFull> {
    match family {
        _ if pair.local.is_unspecified() => Ok(()),
        Family::DualStack => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: pair.local.octets() },
                ipi6_ifindex: pair.interface_index,
            };
            encoder.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
        Family::V4 => {
            let local = pair.local.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            encoder.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
    }
}

/// Returns the destination address and interface index of a received datagram. If the kernel did
/// not report it, the address is unspecified, so that the kernel selects the source of replies.
pub(super) fn read_destination(messages: cmsg::Messages<'_>) -> (Ipv6Addr, u32) {
    for message in messages {
        match (message.level, message.kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let Some(info) = message.value::<libc::in6_pktinfo>() else { break };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // Only a link-local address needs its interface; otherwise the routing table
                // selects it.
                return (ip, if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 });
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let Some(info) = message.value::<libc::in_pktinfo>() else { break };
                return (Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).to_ipv6_mapped(), 0);
            }
            _ => {}
        }
    }
    (Ipv6Addr::UNSPECIFIED, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_addresses_are_read_back() {
        let check = |remote: &str, family, bytes: usize| {
            let remote: SocketAddr = remote.parse().unwrap();
            let mut name = EMPTY;
            assert_eq!(write(&mut name, remote, family) as usize, bytes);
            assert_eq!(read(&name), remote);
        };
        check("203.0.113.7:50000", Family::V4, 16);
        check("203.0.113.7:50000", Family::DualStack, 28);
        check("[2001:db8::7]:50000", Family::DualStack, 28);
        check("[fe80::7%3]:50000", Family::DualStack, 28);
    }
}
