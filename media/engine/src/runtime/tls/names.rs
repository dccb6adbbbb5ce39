//! The names that the self-signed certificate is valid for: those of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use headwater_api::config;
use rcgen::SanType;
use rustls::pki_types::ServerName;

/// The names of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// Those by which viewers and the administrator address the node. A certificate that lacks one
    /// of them is replaced.
    required: Vec<ServerName<'static>>,
    /// The addresses of the interfaces, where no addresses are configured. A laptop changes them
    /// with each network, which must not change its certificate.
    interfaces: Vec<IpAddr>,
}

impl Names {
    /// `localhost`, its addresses, the host name, and the configured addresses, else those of the
    /// interfaces.
    pub(super) fn of(node: &config::Node) -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let interfaces = if node.addresses.is_empty() { interface_addresses() } else { Vec::new() };
        Self::new(host_name.trim(), &node.addresses, interfaces)
    }

    /// A host name that is no DNS name is left out. A certificate cannot contain a final dot.
    pub(super) fn new(host_name: &str, addresses: &[IpAddr], interfaces: Vec<IpAddr>) -> Self {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut required: Vec<ServerName<'static>> = Vec::new();
        let host_names = ["localhost", host_name.trim_end_matches('.')]
            .into_iter()
            .filter_map(|name| ServerName::try_from(name.to_owned()).ok());
        let all = host_names.chain(loopback.iter().chain(addresses).map(|ip| ServerName::IpAddress((*ip).into())));
        for name in all {
            if !required.contains(&name) {
                required.push(name);
            }
        }
        Self { required, interfaces }
    }

    /// The names that a certificate must have.
    pub(super) fn required(&self) -> &[ServerName<'static>] {
        &self.required
    }

    /// All names, for a new certificate.
    pub(super) fn subject_alt_names(&self) -> Vec<SanType> {
        let required = self.required.iter().filter_map(|name| match name {
            ServerName::DnsName(name) => name.as_ref().to_owned().try_into().ok().map(SanType::DnsName),
            ServerName::IpAddress(ip) => Some(SanType::IpAddress((*ip).into())),
            _ => None,
        });
        let mut all: Vec<_> = required.collect();
        for address in self.interfaces.iter().map(|ip| SanType::IpAddress(*ip)).take(MAX_INTERFACE_ADDRESSES) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }
}

/// The addresses of all interfaces that are up. None if they cannot be listed: the certificate then
/// has fewer names.
fn interface_addresses() -> Vec<IpAddr> {
    let up = nix::net::if_::InterfaceFlags::IFF_UP;
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|interface| interface.flags.contains(up));
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    addresses.filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect()
}

/// A machine with many container bridges has dozens of addresses.
const MAX_INTERFACE_ADDRESSES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &Names) -> Vec<String> {
        names.required().iter().map(|name| name.to_str().into_owned()).collect()
    }

    #[test]
    fn names_are_those_of_the_machine_each_once() {
        let addresses = ["203.0.113.7", "10.0.1.12", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let names = Names::new("studio-1", &addresses, vec!["10.0.1.12".parse().unwrap(), "10.9.9.9".parse().unwrap()]);
        assert_eq!(texts(&names), ["localhost", "studio-1", "127.0.0.1", "::1", "203.0.113.7", "10.0.1.12"]);
        assert_eq!(names.subject_alt_names().len(), 7, "the other address of an interface is added");
    }

    #[test]
    fn final_dot_of_a_host_name_is_left_out() {
        let names = Names::new("studio-1.example.", &[], Vec::new());
        assert_eq!(texts(&names), ["localhost", "studio-1.example", "127.0.0.1", "::1"]);
    }

    #[test]
    fn host_name_that_is_no_dns_name_is_left_out() {
        for host_name in ["", "localhost", "two words", "-", "ümlaut"] {
            assert_eq!(
                texts(&Names::new(host_name, &[], Vec::new())),
                ["localhost", "127.0.0.1", "::1"],
                "{host_name}"
            );
        }
    }
}
