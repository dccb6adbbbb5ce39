//! Asks this engine's own listeners whether they serve, the way a client would.
//!
//! A connection that the kernel accepts proves nothing: each probe waits for an answer that only a living task gives.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For connecting and answering together.
const PATIENCE: Duration = Duration::from_secs(1);

/// HTTP: the status line of a cheap request. RFC 9112 §4.
pub(super) async fn http(address: SocketAddr) -> Result<(), String> {
    let request = b"GET /rest/v2/version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let start = ask::<12>(address, request).await?;
    if &start == b"HTTP/1.1 200" { Ok(()) } else { Err("answers something else than HTTP".to_owned()) }
}

/// RTMP: the version byte that answers C0 and C1. RTMP 1.0 §5.2.2.
pub(super) async fn rtmp(address: SocketAddr) -> Result<(), String> {
    let mut hello = [0; 1 + 1536];
    hello[0] = 3;
    match ask::<1>(address, &hello).await? {
        [3] => Ok(()),
        _ => Err("answers something else than RTMP".to_owned()),
    }
}

async fn ask<const N: usize>(address: SocketAddr, request: &[u8]) -> Result<[u8; N], String> {
    let talk = async {
        let mut stream = TcpStream::connect(reachable(address)).await?;
        stream.write_all(request).await?;
        let mut answer = [0; N];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(result) => result.map_err(|e| format!("does not answer: {e}")),
        Err(_) => Err(format!("does not answer within {} ms", PATIENCE.as_millis())),
    }
}

/// Where to reach a listener of this host: the unspecified address means every address, so loopback will do.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        // A listener on [::] takes IPv4 too, and IPv4's loopback is there even where IPv6 is turned off.
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_accepts_and_says_nothing_is_not_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let why = rtmp(listener.local_addr().unwrap()).await.unwrap_err();
        assert!(why.contains("within 1000 ms"), "{why}");
    }

    #[tokio::test]
    async fn a_listener_that_says_something_else_is_not_alive() {
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
    async fn a_closed_port_is_not_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(http(address).await.is_err());
    }
}
