//! Checks that the engine accepts connections on every port.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use headwater_api::Config;
use headwater_api::control::Endpoints;
use tokio::net::TcpStream;

use super::{Finding, REQUEST_TIMEOUT};
use crate::http_client;
use crate::process::engine::dial_address;

const CHECK: &str = "ports";

/// Connects to each listener, and asks the engine whether it is ready.
pub(super) async fn check(config: &Config, engine: Option<&Endpoints>) -> Finding {
    let Some(engine) = engine else {
        return Finding::fail(CHECK, "no engine runs", "start the node: systemctl start headwaterd, or headwaterd run");
    };
    let tcp = [
        ("http", Some(engine.http)),
        ("https", engine.https),
        ("rtmp", Some(engine.rtmp)),
        ("rtmps", engine.rtmps),
        ("relay", engine.relay),
        ("health", Some(engine.health)),
    ];
    let mut closed = Vec::new();
    let mut answering = Vec::new();
    for (name, address) in tcp.into_iter().filter_map(|(name, address)| Some((name, address?))) {
        let named = format!("{name} {}", address.port());
        match tokio::time::timeout(REQUEST_TIMEOUT, TcpStream::connect(dial_address(address))).await {
            Ok(Ok(_)) => answering.push(named),
            Ok(Err(_)) | Err(_) => closed.push(named),
        }
    }
    for port in &engine.webrtc {
        let named = format!("webrtc {port}/udp");
        if is_port_in_use(*port) { answering.push(named) } else { closed.push(named) }
    }
    if !closed.is_empty() {
        let remedy =
            "read the node's log (journalctl -u headwaterd); an engine that was killed is started again within seconds";
        return Finding::fail(CHECK, format!("no answer on {}", closed.join(", ")), remedy);
    }
    match http_client::get(dial_address(engine.health), "/readyz", REQUEST_TIMEOUT).await {
        Ok(answer) if !answer.status().is_success() => {
            let reason = String::from_utf8_lossy(answer.body()).trim().to_owned();
            Finding::warn(
                CHECK,
                format!("all answer, but the node is not ready: {reason}"),
                "wait, or read the node's log",
            )
        }
        _ if config.tls.certificate_file.is_some() && engine.https.is_none() => Finding::warn(
            CHECK,
            "no HTTPS, although [tls] names a certificate",
            "restart the node: it was started without one",
        ),
        _ => Finding::ok(CHECK, answering.join(", ")),
    }
}

/// True if the port is in use. UDP offers no other way to detect a listener.
fn is_port_in_use(port: u16) -> bool {
    UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        .is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::super::CheckStatus;
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn closed_port_is_named_and_a_node_that_is_not_ready_warns() {
        let (open, address) = listener();
        let (health_listener, health) = listener();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        // Each check first connects and closes, then sends the request on a second connection.
        std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let _probe = health_listener.accept().unwrap();
                let (mut request, _) = health_listener.accept().unwrap();
                let _ = request.read(&mut [0; 1024]).unwrap();
                write!(request, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let mut engine = Endpoints {
            pid: 1,
            http: address,
            https: None,
            rtmp: address,
            rtmps: None,
            relay: None,
            webrtc: vec![udp.local_addr().unwrap().port()],
            health,
        };
        let config = Config::default();
        assert_eq!(check(&config, Some(&engine)).await.status, CheckStatus::Ok);
        assert_eq!(check(&config, Some(&engine)).await.status, CheckStatus::Warn);
        drop(open);
        let found = check(&config, Some(&engine)).await;
        assert_eq!(found.status, CheckStatus::Fail);
        assert!(found.message.contains(&format!("http {}", address.port())), "{}", found.message);
        engine.webrtc = vec![1];
        assert!(check(&config, Some(&engine)).await.message.contains("webrtc 1/udp") || nix::unistd::geteuid().is_root());
        assert_eq!(check(&config, None).await.status, CheckStatus::Fail);
    }
}
