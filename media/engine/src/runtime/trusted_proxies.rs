//! The networks of proxies and load balancers that may speak for their clients.
//!
//! Must not know how a proxy names its client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use headwater_api::IpNetwork;

/// The configured networks; clones share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNetwork]>);

impl TrustedProxies {
    /// Trusts every address in `networks`, and no other.
    pub fn new(networks: &[IpNetwork]) -> Self {
        Self(networks.into())
    }

    /// True if the address is one of a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// The address by which a client is counted: an IPv4 address, or the first address of an IPv6 /64,
/// because a client usually has all addresses of one.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_count_per_64_bit_prefix_and_ipv4_clients_per_address() {
        let check = |address: &str, expected: &str| {
            let network = client_network(address.parse().unwrap());
            assert_eq!(network, expected.parse::<IpAddr>().unwrap(), "{address}");
        };
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("192.0.2.7", "192.0.2.7");
    }
}
