//! A range of IP addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An IPv4 or IPv6 network: `10.0.0.0/16`, `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    /// The first address.
    address: IpAddr,
    prefix_bits: u8,
}

/// The text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network, such as \"10.0.0.0/16\" or \"2001:db8::/32\"")]
pub struct InvalidNetwork(String);

impl IpNetwork {
    /// The network of this address; bits after the prefix are cleared. A prefix that is too long is
    /// the whole address.
    pub fn of(address: IpAddr, prefix_bits: u8) -> Self {
        let prefix_bits = prefix_bits.min(max_prefix_bits(address));
        Self { address: mask(address, prefix_bits), prefix_bits }
    }

    /// The first address of the network.
    pub fn first_address(&self) -> IpAddr {
        self.address
    }

    /// True if the address is in the network. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix_bits) == self.address
    }
}

fn max_prefix_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Clears all bits after the first `prefix_bits`.
fn mask(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let host_bits = 32_u32.saturating_sub(prefix_bits.into());
            Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
        IpAddr::V6(ip) => {
            let host_bits = 128_u32.saturating_sub(prefix_bits.into());
            Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
    }
}

impl FromStr for IpNetwork {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parse = || {
            let (address, prefix) = text.split_once('/').map_or((text, None), |(a, prefix)| (a, Some(prefix)));
            let address: IpAddr = address.parse().ok()?;
            let prefix_bits = prefix.map_or(Some(max_prefix_bits(address)), |prefix| prefix.parse().ok())?;
            (prefix_bits <= max_prefix_bits(address)).then(|| Self::of(address, prefix_bits))
        };
        parse().ok_or_else(|| InvalidNetwork(text.to_owned()))
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl Serialize for IpNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_the_addresses_of_its_prefix() {
        let check = |network: &str, address: &str, expected: bool| {
            let contains = network.parse::<IpNetwork>().unwrap().contains(address.parse().unwrap());
            assert_eq!(contains, expected, "{network} {address}");
        };
        check("10.1.0.0/16", "10.1.255.255", true);
        check("10.1.2.3/16", "10.1.0.0", true);
        check("10.1.0.0/16", "10.2.0.0", false);
        check("10.1.0.0/16", "::ffff:10.1.0.1", true);
        check("10.1.0.0/16", "::a01:1", false);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("2001:db8::/33", "2001:db8:7fff::1", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
        check("::/0", "2001:db8::1", true);
    }

    #[test]
    fn network_is_parsed_strictly_and_printed_in_full() {
        for (text, printed) in [("10.1.2.3/8", "10.0.0.0/8"), ("::1", "::1/128"), ("0.0.0.0/0", "0.0.0.0/0")] {
            assert_eq!(text.parse::<IpNetwork>().unwrap().to_string(), printed);
        }
        for text in ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/8/8", "a/8", "10.0.0.0/-1"] {
            let error = text.parse::<IpNetwork>().unwrap_err();
            assert_eq!(error, InvalidNetwork(text.to_owned()));
        }
    }
}
