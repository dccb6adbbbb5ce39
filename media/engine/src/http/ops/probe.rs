//! Probes this engine's own listeners as a client would.
//!
//! The kernel accepts connections even if the engine hangs, so each probe waits for a response that
//! only a running task can send.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use headwater_program::own_tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::relay::RelayClient;

/// Time for connecting and receiving the response.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// HTTP: expects status 200 for a cheap request (RFC 9112 §4).
pub(crate) async fn http(address: SocketAddr) -> Result<(), String> {
    with_timeout(async { exchange_http(connect(address).await?).await }).await
}

/// The same over TLS.
pub(crate) async fn https(address: SocketAddr) -> Result<(), String> {
    with_timeout(async { exchange_http(connect_tls(connect(address).await?).await?).await }).await
}

/// RTMP: expects the version byte S0 in response to C0 and C1 (RTMP 1.0 §5.2.2).
pub(crate) async fn rtmp(address: SocketAddr) -> Result<(), String> {
    with_timeout(async { exchange_rtmp(connect(address).await?).await }).await
}

/// The same over TLS.
pub(crate) async fn rtmps(address: SocketAddr) -> Result<(), String> {
    with_timeout(async { exchange_rtmp(connect_tls(connect(address).await?).await?).await }).await
}

/// Relay: expects the proof that it knows the cluster secret.
pub(crate) async fn relay(address: SocketAddr, relay: &RelayClient) -> Result<(), String> {
    relay.check_connection(connect_address(address)).await.map_err(|why| format!("does not answer: {why}"))
}

async fn exchange_http(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Result<(), String>> {
    let request = b"GET /rest/v2/version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let is_http = &exchange::<12>(stream, request).await? == b"HTTP/1.1 200";
    Ok(if is_http { Ok(()) } else { Err("does not respond with HTTP".to_owned()) })
}

async fn exchange_rtmp(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Result<(), String>> {
    let mut hello = [0; 1 + 1536];
    hello[0] = 3;
    let is_rtmp = exchange::<1>(stream, &hello).await? == [3];
    Ok(if is_rtmp { Ok(()) } else { Err("does not respond with RTMP".to_owned()) })
}

async fn exchange<const N: usize>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> io::Result<[u8; N]> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(connect_address(address)).await
}

/// Performs a TLS handshake without validating the certificate, which is this engine's own.
async fn connect_tls(stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let config = own_tls::client_config().map_err(io::Error::other)?;
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn with_timeout(talk: impl Future<Output = io::Result<Result<(), String>>>) -> Result<(), String> {
    match tokio::time::timeout(PROBE_TIMEOUT, talk).await {
        Ok(result) => result.map_err(|e| format!("does not answer: {e}"))?,
        Err(_) => Err(format!("does not answer within {} ms", PROBE_TIMEOUT.as_millis())),
    }
}

/// The address at which a listener of this host is reachable: loopback for the unspecified address.
fn connect_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        // A listener on [::] also accepts IPv4, and the IPv4 loopback exists even without IPv6.
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use headwater_api::config;
    use headwater_wire::relay::ClusterSecret;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::StaticResolver;
    use crate::gateway::relay::{Server, Timing};
    use crate::hub::{Hub, Limits};

    /// Starts a TLS server that sends `answer` after the first byte.
    async fn tls_server_answering(answer: &'static [u8]) -> SocketAddr {
        let pair = rcgen::generate_simple_self_signed(vec!["somewhere.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.read_exact(&mut [0; 1]).await.unwrap();
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                // The client may close the connection without close_notify.
                stream.read_to_end(&mut Vec::new()).await.ok();
            }
        });
        address
    }

    /// Runs the HTTPS and the RTMPS probe on one address.
    async fn probe_both(address: SocketAddr) -> (Result<(), String>, Result<(), String>) {
        (https(address).await, rtmps(address).await)
    }

    #[tokio::test]
    async fn tls_probe_checks_the_response_and_ignores_the_certificate() {
        let (https, rtmps) = probe_both(tls_server_answering(b"HTTP/1.1 200 OK\r\n\r\n").await).await;
        assert_eq!((https, rtmps.is_err()), (Ok(()), true));
        let (https, rtmps) = probe_both(tls_server_answering(&[3; 12]).await).await;
        assert_eq!((https.is_err(), rtmps), (true, Ok(())));
    }

    #[tokio::test]
    async fn tls_probe_fails_without_a_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (https, rtmps) = probe_both(address).await;
        assert!(https.unwrap_err().contains("within 1000 ms") && rtmps.unwrap_err().contains("within 1000 ms"));
        drop(listener);
        let (https, rtmps) = probe_both(address).await;
        assert!(https.unwrap_err().starts_with("does not answer: ") && rtmps.is_err());
    }

    fn relay_client(secret: &[u8]) -> RelayClient {
        let secret = ClusterSecret::new(secret).unwrap();
        RelayClient::new(secret, Arc::new(StaticResolver::new(Vec::new())), Timing::default())
    }

    #[tokio::test]
    async fn relay_probe_requires_the_secret_and_succeeds_at_the_connection_limit() {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = config::Relay { listen, max_connections: 1.try_into().unwrap(), ..config::Relay::default() };
        let server = Server::bind(&config).unwrap();
        let (address, drain, client) =
            (server.local_addr(), CancellationToken::new(), relay_client(b"a secret of the cluster"));
        let unserved = relay(address, &client).await.unwrap_err();
        assert!(unserved.contains("within 1000 ms"), "{unserved}");
        let hub = Hub::new(Limits::default());
        let serving = tokio::spawn(server.run(hub, client.clone(), drain.clone()));
        let _held = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            assert_eq!(relay(address, &client).await, Ok(()));
        }
        assert!(relay(address, &relay_client(b"a secret of another cluster")).await.is_err());
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(relay(address, &client).await.unwrap_err().contains("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn probe_times_out_if_the_listener_never_responds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let why = rtmp(listener.local_addr().unwrap()).await.unwrap_err();
        assert!(why.contains("within 1000 ms"), "{why}");
    }

    #[tokio::test]
    async fn probe_fails_if_the_response_is_another_protocol() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH").await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        assert!(http(address).await.is_err());
        server.await.unwrap();
    }

    #[tokio::test]
    async fn probe_fails_on_a_closed_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(http(address).await.is_err());
    }
}
