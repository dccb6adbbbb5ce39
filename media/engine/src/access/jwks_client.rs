//! Fetches a JWK set over HTTPS.
//!
//! The URL comes from an administrator, but what it leads to does not: redirects are not followed,
//! and the name may resolve to any address. The connection goes to an address that was checked,
//! never to the node itself or its link, and to private networks only if the app permits it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use headwater_api::IpNetwork;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::jwk_set::{InvalidJwkSet, JwkSet};

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL has no host, or another scheme than `https` (with permission: `http`).
    #[error("the URL cannot be used")]
    Url,
    /// The name has no address.
    #[error("could not resolve {host}")]
    Resolve { host: String, source: io::Error },
    /// All addresses of the name are forbidden.
    #[error("{host} resolves to {address}, where keys must not be fetched")]
    ForbiddenAddress { host: String, address: IpAddr },
    /// The name resolves to no address.
    #[error("{host} has no address")]
    NoAddress { host: String },
    /// The connection or its TLS handshake failed.
    #[error("could not connect to {host}")]
    Connect { host: String, source: io::Error },
    /// The exchange failed.
    #[error("no valid response")]
    Http(#[from] hyper::Error),
    /// The status is another one than 200.
    #[error("the response has the status {0}")]
    Status(StatusCode),
    /// The body is too long, or the connection failed while it was read.
    #[error("the body could not be read, or has more than {MAX_BODY_BYTES} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The body is something else.
    #[error(transparent)]
    Invalid(#[from] InvalidJwkSet),
    /// All of it took too long.
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
}

/// A client of one URL.
#[derive(Debug)]
pub(super) struct JwksClient {
    url: String,
    may_be_private: bool,
    tls: Arc<rustls::ClientConfig>,
    /// Networks that are exempt from the rules for addresses, for tests.
    exempt: Vec<IpNetwork>,
}

impl JwksClient {
    /// A client that trusts the public certificate authorities. `may_be_private` permits private
    /// networks and `http`.
    pub(super) fn new(url: &str, may_be_private: bool) -> Self {
        Self { url: url.to_owned(), may_be_private, tls: Arc::clone(&PUBLIC_TLS), exempt: Vec::new() }
    }

    /// A client for a server of a test, on loopback.
    #[cfg(test)]
    pub(super) fn for_test(url: &str, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { url: url.to_owned(), may_be_private: true, tls, exempt: vec!["127.0.0.0/8".parse().unwrap()] }
    }

    /// The URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// True if this is the client of this URL, with this permission.
    pub(super) fn is_for(&self, url: &str, may_be_private: bool) -> bool {
        self.url == url && self.may_be_private == may_be_private
    }

    /// Fetches the keys; takes at most [`FETCH_TIMEOUT`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(super) async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let body = tokio::time::timeout(FETCH_TIMEOUT, self.fetch_body()).await.map_err(|_| FetchError::Timeout)??;
        Ok(JwkSet::parse(&body)?)
    }

    async fn fetch_body(&self) -> Result<Bytes, FetchError> {
        let uri: Uri = self.url.parse().map_err(|_| FetchError::Url)?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if self.may_be_private => false,
            _ => return Err(FetchError::Url),
        };
        let host = uri.host().ok_or(FetchError::Url)?;
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = self.resolve(host, port).await?;
        let stream = TcpStream::connect(&addresses[..]).await;
        let stream = stream.map_err(|source| FetchError::Connect { host: host.to_owned(), source })?;
        if !is_tls {
            return exchange(stream, &uri).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        exchange(stream.map_err(|source| FetchError::Connect { host: host.to_owned(), source })?, &uri).await
    }

    /// The addresses of the host to which the connection may go; at least one.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
        let resolved = tokio::net::lookup_host((host, port)).await;
        let resolved = resolved.map_err(|source| FetchError::Resolve { host: host.to_owned(), source })?;
        let (permitted, forbidden): (Vec<_>, Vec<_>) = resolved.partition(|address| {
            is_permitted(address.ip(), self.may_be_private) || self.exempt.iter().any(|n| n.contains(address.ip()))
        });
        match forbidden.first() {
            _ if !permitted.is_empty() => Ok(permitted),
            Some(address) => Err(FetchError::ForbiddenAddress { host: host.to_owned(), address: address.ip() }),
            None => Err(FetchError::NoAddress { host: host.to_owned() }),
        }
    }
}

/// Sends the request and reads the whole response.
async fn exchange<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: T,
    uri: &Uri,
) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped.
    let connection = tokio::spawn(connection);
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::USER_AGENT, concat!("headwater/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(FetchError::Body)?;
    connection.abort();
    Ok(body.to_bytes())
}

/// True if keys may be fetched from this address.
fn is_permitted(address: IpAddr, may_be_private: bool) -> bool {
    let address = embedded_ipv4(address.to_canonical());
    let is_in = |networks: &[IpNetwork]| networks.iter().any(|network| network.contains(address));
    !is_in(&FORBIDDEN) && (may_be_private || !is_in(&PRIVATE))
}

/// The IPv4 address that an IPv6 address leads to (RFC 6052 §2.1, RFC 8215, RFC 2765 §2.1,
/// RFC 3056 §2), else the address.
fn embedded_ipv4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = address else { return address };
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| IpAddr::from(((u32::from(high) << 16) | u32::from(low)).to_be_bytes());
    match segments {
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn networks<const N: usize>(texts: [&str; N]) -> Vec<IpNetwork> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The node itself, its link (with the metadata service of EC2), what is no address of one host,
/// networks for benchmarks (RFC 2544), and tunnels to unknown addresses (RFC 4380).
static FORBIDDEN: LazyLock<Vec<IpNetwork>> = LazyLock::new(|| {
    networks([
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "fd00:ec2::/32",
        "198.18.0.0/15",
        "2001::/32",
    ])
});

/// Private networks (RFC 1918, RFC 6598, RFC 4193).
static PRIVATE: LazyLock<Vec<IpNetwork>> =
    LazyLock::new(|| networks(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]));

static PUBLIC_TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    Arc::new(client_config(roots))
});

/// TLS 1.2 and 1.3 for HTTP/1.1, with these certificate authorities.
fn client_config(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Maximum duration of a fetch, from the name to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum length of a JWK set.
const MAX_BODY_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_fetched_from_this_node_or_its_link() {
        let check = |address: &str, public: bool, private: bool| {
            let address = address.parse().unwrap();
            assert_eq!((is_permitted(address, false), is_permitted(address, true)), (public, private), "{address}");
        };
        for forbidden in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::127.0.0.1",
            "64:ff9b:1::7f00:1",
            "::ffff:0:127.0.0.1",
            "198.18.0.1",
            "2001::1",
        ] {
            check(forbidden, false, false);
        }
        for private in
            ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"]
        {
            check(private, false, true);
        }
        for public in ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"] {
            check(public, true, true);
        }
    }

    #[tokio::test]
    async fn url_that_leads_to_loopback_or_needs_another_scheme_is_not_fetched() {
        let error = async |url: &str, may_be_private| {
            JwksClient::new(url, may_be_private).fetch().await.unwrap_err().to_string()
        };
        for url in [
            "https://127.0.0.1/keys",
            "https://localhost/keys",
            "https://[::1]/keys",
            "https://[::ffff:127.0.0.1]:8443/",
        ] {
            assert!(error(url, true).await.ends_with("where keys must not be fetched"), "{url}");
        }
        assert_eq!(error("http://example.com/keys", false).await, "the URL cannot be used");
        assert_eq!(error("ftp://example.com/keys", true).await, "the URL cannot be used");
        assert!(error("https://10.0.0.1/keys", false).await.ends_with("where keys must not be fetched"));
    }
}
