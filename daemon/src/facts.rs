//! What can be found out about this machine, before anything is decided.
//!
//! Facts are only gathered here; what follows from them is for `plan.rs`.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::Serialize;

/// A machine as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Facts {
    /// Its host name; empty if it has none.
    pub host_name: String,
    /// Addresses of its interfaces that other machines may reach, in the order of the interfaces.
    pub addresses: Vec<IpAddr>,
}

/// The facts that the machine itself holds. What cannot be read is left empty: no plan depends on it alone.
pub(crate) fn read_local() -> Facts {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut addresses = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let address = interface.address.and_then(|a| {
            let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        addresses.extend(address.filter(|a| up && reachable(*a) && !addresses.contains(a)));
    }
    Facts { host_name: host_name.trim().to_owned(), addresses }
}

/// True for an address that means this machine on other machines too.
fn reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_facts_hold_no_address_that_means_another_machine_elsewhere() {
        let facts = read_local();
        assert!(facts.addresses.iter().all(|a| reachable(*a)), "{facts:?}");
        assert!(!facts.host_name.contains(char::is_whitespace), "{facts:?}");
        for hidden in ["127.0.0.1", "169.254.1.2", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!reachable(hidden.parse().unwrap()), "{hidden}");
        }
    }
}
