//! Selects the host candidates that an SDP answer lists.

use std::net::IpAddr;

/// Returns the configured addresses or, if there are none, those of all interfaces that are up, at
/// most [`MAX_CANDIDATES`], loopback last.
pub(crate) fn candidates(configured: &[IpAddr]) -> std::io::Result<Vec<IpAddr>> {
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let mut found: Vec<IpAddr> = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        if !interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(storage) = interface.address else { continue };
        let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        if is_usable(ip) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    found.truncate(MAX_CANDIDATES);
    Ok(found)
}

/// Rejects link-local addresses: they need a zone, which SDP cannot carry.
fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// A machine with many container bridges has dozens of addresses, and a viewer checks every one.
const MAX_CANDIDATES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_are_used_verbatim_and_loopback_sorts_last() {
        let configured: Vec<IpAddr> = vec!["203.0.113.7".parse().unwrap(), "10.0.1.12".parse().unwrap()];
        assert_eq!(candidates(&configured).unwrap(), configured);
        let found = candidates(&[]).unwrap();
        assert!(found.iter().any(IpAddr::is_loopback));
        assert!(found.is_sorted_by_key(IpAddr::is_loopback));
    }
}
