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
        ("http", engine.http),
        ("https", engine.https),
        ("rtmp", engine.rtmp),
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
        _ if config.tls.certificate_file.is_some() && engine.self_signed_fingerprint.is_some() => Finding::warn(
            CHECK,
            "HTTPS uses a self-signed certificate, although [tls] names one",
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

    /// A UDP port that was free a moment ago.
    fn closed_udp_port() -> u16 {
        UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port()
    }

    /// An engine whose TCP listeners are all at one address, and whose only worker has this UDP
    /// port.
    fn endpoints(address: SocketAddr, udp_port: u16) -> Endpoints {
        Endpoints {
            pid: 1,
            http: Some(address),
            https: None,
            self_signed_fingerprint: None,
            rtmp: Some(address),
            rtmps: None,
            relay: None,
            webrtc: vec![udp_port],
            health: address,
        }
    }

    #[tokio::test]
    async fn node_that_is_not_ready_warns_with_the_reason() {
        let ((_open, address), (health_listener, health)) = (listener(), listener());
        let udp = UdpSocket::bind("[::]:0").unwrap();
        // Each check first connects and closes, then sends the request on a second connection.
        std::thread::spawn(move || {
            for answer in ["200 OK\r\ncontent-length: 0\r\n\r\n", "503 x\r\ncontent-length: 8\r\n\r\ndraining"] {
                let _probe = health_listener.accept().unwrap();
                let (mut request, _) = health_listener.accept().unwrap();
                let _ = request.read(&mut [0; 1024]).unwrap();
                write!(request, "HTTP/1.1 {answer}").unwrap();
            }
        });
        let engine = Endpoints { health, ..endpoints(address, udp.local_addr().unwrap().port()) };
        let found = check(&Config::default(), Some(&engine)).await;
        let (port, udp_port) = (address.port(), engine.webrtc[0]);
        let all = format!("http {port}, rtmp {port}, health {}, webrtc {udp_port}/udp", health.port());
        assert_eq!(found, Finding::ok("ports", all));
        let found = check(&Config::default(), Some(&engine)).await;
        assert_eq!(found.status, CheckStatus::Warn);
        assert_eq!(found.message, "all answer, but the node is not ready: draining");
    }

    #[tokio::test]
    async fn every_closed_port_is_named_and_no_open_one() {
        let (_open, address) = listener();
        // Closed when the listener is dropped here.
        let closed = listener().1;
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let (open_udp, closed_udp) = (udp.local_addr().unwrap().port(), closed_udp_port());
        let open = || endpoints(address, open_udp);
        let port = closed.port();
        for (engine, expected) in [
            (Endpoints { http: Some(closed), ..open() }, format!("no answer on http {port}")),
            (Endpoints { https: Some(closed), ..open() }, format!("no answer on https {port}")),
            (Endpoints { rtmp: Some(closed), ..open() }, format!("no answer on rtmp {port}")),
            (Endpoints { rtmps: Some(closed), ..open() }, format!("no answer on rtmps {port}")),
            (Endpoints { relay: Some(closed), ..open() }, format!("no answer on relay {port}")),
            (Endpoints { health: closed, ..open() }, format!("no answer on health {port}")),
            (endpoints(address, closed_udp), format!("no answer on webrtc {closed_udp}/udp")),
        ] {
            let found = check(&Config::default(), Some(&engine)).await;
            assert_eq!((found.status, found.message), (CheckStatus::Fail, expected));
        }
        assert_eq!(check(&Config::default(), None).await.status, CheckStatus::Fail);
    }
}
