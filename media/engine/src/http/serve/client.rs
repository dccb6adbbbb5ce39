//! Decides who sent a request: the only place that reads `X-Forwarded-For` and
//! `X-Forwarded-Proto`. Statistics, limits, throttles and logs use its result.
//!
//! ```text
//!   client ---> proxy 1 ---> proxy 2 ---> this node
//!   X-Forwarded-For: what the client claims, client, proxy 1         peer: proxy 2
//! ```
//!
//! Each proxy appends the address that it was connected from. So the list is true from the right up
//! to the first address that is not a trusted proxy: that is the client. The rest is a claim.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{Extensions, HeaderMap, HeaderValue, header};

use crate::runtime::trusted_proxies::TrustedProxies;

/// Name of the header field with the addresses of client and proxies, in lower case.
pub(in crate::http) const FORWARDED_FOR: &str = "x-forwarded-for";
/// Name of the header field with the scheme of the client's connection, in lower case.
pub(in crate::http) const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The client of a request; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address; never an IPv4-mapped one.
    pub address: IpAddr,
    /// How its own connection, to this node or to a trusted proxy, is encrypted.
    pub encryption: Encryption,
    /// True if it is a program of this machine: connected over loopback, and no proxy has forwarded
    /// the request.
    pub is_local: bool,
}

/// How a client's connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Not at all.
    None,
    /// With the self-signed certificate of this node.
    SelfSigned,
    /// With a configured certificate, or that of a trusted proxy.
    Certified,
}

impl Client {
    /// The client in the extensions of a request; an unspecified address if there is none.
    pub(in crate::http) fn of(extensions: &Extensions) -> Self {
        let unknown = Self { address: Ipv6Addr::UNSPECIFIED.into(), encryption: Encryption::None, is_local: false };
        extensions.get().copied().unwrap_or(unknown)
    }

    /// True if the client's connection is encrypted: its origin is `https://…`.
    pub(in crate::http) fn is_encrypted(&self) -> bool {
        self.encryption != Encryption::None
    }
}

/// Resolves the clients of the requests of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ClientResolver {
    /// The peer of the connection as a client that no proxy speaks for.
    peer: Client,
    /// The trusted proxies, if the peer is one of them.
    proxies: Option<TrustedProxies>,
}

impl ClientResolver {
    /// `encryption` is that of the connection to `peer`.
    pub(crate) fn new(peer: SocketAddr, encryption: Encryption, proxies: &TrustedProxies) -> Self {
        let address = peer.ip().to_canonical();
        let proxies = proxies.contains(address).then(|| proxies.clone());
        Self { peer: Client { address, encryption, is_local: address.is_loopback() }, proxies }
    }

    /// Returns the client of a request with these values of the two header fields, each in their
    /// order in the request.
    pub(crate) fn resolve<'a>(
        &self,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
        forwarded_proto: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> Client {
        let (mut forwarded_for, mut forwarded_proto) =
            (forwarded_for.rev().peekable(), forwarded_proto.rev().peekable());
        let is_forwarded = forwarded_for.peek().is_some() || forwarded_proto.peek().is_some();
        let is_local = self.peer.is_local && !is_forwarded;
        let Some(proxies) = &self.proxies else { return Client { is_local, ..self.peer } };
        let mut address = self.peer.address;
        for entry in forwarded_for.flat_map(|value| value.rsplit(|b| *b == b',')) {
            // A proxy that does not tell its client's address speaks for itself.
            let Some(entry) = parse_address(entry) else { break };
            address = entry;
            if !proxies.contains(entry) {
                break;
            }
        }
        let encryption = match forwarded_proto.flat_map(|value| value.rsplit(|b| *b == b',')).next() {
            Some(scheme) if scheme.trim_ascii().eq_ignore_ascii_case(b"https") => Encryption::Certified,
            Some(_) => Encryption::None,
            None => self.peer.encryption,
        };
        Client { address, encryption, is_local }
    }

    /// Returns the client of a request with these header fields.
    pub(crate) fn resolve_headers(&self, headers: &HeaderMap) -> Client {
        let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let client = self.resolve(values(FORWARDED_FOR), values(FORWARDED_PROTO));
        // Proxies that name themselves in another way (RFC 9110 §7.6.3, RFC 7239).
        let is_local =
            client.is_local && !headers.contains_key(header::VIA) && !headers.contains_key(header::FORWARDED);
        Client { is_local, ..client }
    }
}

/// Parses an address, also with a port, which some load balancers append.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    Some(text.parse().ok().or_else(with_port).or_else(in_brackets)?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(peer: &str, encryption: Encryption) -> ClientResolver {
        let trusted = ["10.0.0.0/16", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
        ClientResolver::new(SocketAddr::new(peer.parse().unwrap(), 1), encryption, &TrustedProxies::new(&trusted))
    }

    fn bytes<'a>(values: &'a [&'a str]) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        values.iter().map(|value| value.as_bytes())
    }

    #[test]
    fn client_is_the_rightmost_address_that_is_not_a_trusted_proxy() {
        let check = |peer: &str, values: &[&str], expected: &str| {
            let client = resolver(peer, Encryption::None).resolve(bytes(values), bytes(&[]));
            assert_eq!(client.address, expected.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        };
        check("10.0.0.5", &["198.51.100.7"], "198.51.100.7");
        check("::ffff:10.0.0.5", &["9.9.9.9, 198.51.100.7"], "198.51.100.7");
        check("10.0.0.5", &["9.9.9.9, 198.51.100.7, 10.0.9.9"], "198.51.100.7");
        check("10.0.0.5", &["9.9.9.9", "198.51.100.7, 10.0.9.9"], "198.51.100.7");
        check("10.0.0.5", &["9.9.9.9, 198.51.100.7", "10.0.9.9"], "198.51.100.7");
        check("10.0.0.5", &["10.0.7.7, 10.0.9.9"], "10.0.7.7");
        check("10.0.0.5", &[], "10.0.0.5");
        check("10.0.0.5", &["198.51.100.7, nonsense"], "10.0.0.5");
        check("10.0.0.5", &["198.51.100.7, , 10.0.9.9"], "10.0.9.9");
        check("10.0.0.5", &["198.51.100.7:4711"], "198.51.100.7");
        check("2001:db8:1::5", &["[2001:db8:2::7]:4711"], "2001:db8:2::7");
        check("2001:db8:1::5", &["[2001:db8:2::7]"], "2001:db8:2::7");
        check("10.0.0.5", &["::ffff:198.51.100.7"], "198.51.100.7");
        // Nobody else is believed, loopback and other private networks included.
        for peer in ["203.0.113.9", "127.0.0.1", "::1", "10.1.0.1", "192.168.0.1", "fd00::1"] {
            check(peer, &["198.51.100.7"], peer);
        }
    }

    #[test]
    fn scheme_is_that_of_the_connection_or_what_a_trusted_proxy_says() {
        let check = |peer: &str, encryption, values: &[&str], expected| {
            let client = resolver(peer, encryption).resolve(bytes(&[]), bytes(values));
            assert_eq!(client.encryption, expected, "{peer} {encryption:?} {values:?}");
        };
        let (none, self_signed, certified) = (Encryption::None, Encryption::SelfSigned, Encryption::Certified);
        check("203.0.113.9", self_signed, &[], self_signed);
        check("203.0.113.9", none, &["https"], none);
        check("203.0.113.9", certified, &["http"], certified);
        check("10.0.0.5", none, &["https"], certified);
        check("10.0.0.5", none, &["http, HTTPS "], certified);
        check("10.0.0.5", none, &["https", "http"], none);
        check("10.0.0.5", self_signed, &["http"], none);
        check("10.0.0.5", self_signed, &["https"], certified);
        check("10.0.0.5", self_signed, &[], self_signed);
    }

    #[test]
    fn client_is_local_only_over_loopback_and_without_a_proxy() {
        let check = |peer: &str, headers: &[(&'static str, &'static str)], expected: bool| {
            let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect();
            for proxies in [TrustedProxies::default(), TrustedProxies::new(&["127.0.0.0/8".parse().unwrap()])] {
                let peer = SocketAddr::new(peer.parse().unwrap(), 1);
                let client = ClientResolver::new(peer, Encryption::None, &proxies).resolve_headers(&headers);
                assert_eq!(client.is_local, expected, "{peer} {headers:?}");
            }
        };
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(peer, &[("host", "localhost")], true);
            for name in ["x-forwarded-for", "x-forwarded-proto", "via", "forwarded"] {
                check(peer, &[(name, "127.0.0.1")], false);
                check(peer, &[(name, "")], false);
            }
        }
        check("10.0.0.5", &[], false);
        check("fe80::1", &[], false);
    }
}
