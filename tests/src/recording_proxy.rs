//! A TCP proxy that records what clients send, such as headers that the server does not show.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The proxy. Accepts connections until the test process ends.
#[derive(Debug)]
pub struct RecordingProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<u8>>>,
}

impl RecordingProxy {
    /// Starts a proxy to `server` on a free port.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let recorded = Arc::clone(&recorded);
                // A client or server that disconnects is not an error.
                std::thread::spawn(move || forward(client, server, &recorded).ok());
            }
        });
        Ok(Self { address, requests })
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that clients have sent, in order of arrival.
    pub fn requests(&self) -> String {
        String::from_utf8_lossy(&self.requests.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn forward(mut client: TcpStream, server: SocketAddr, requests: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    let (mut responses, mut listener) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut responses, &mut listener));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = client.read(&mut buffer)?;
        if n == 0 {
            return server.shutdown(std::net::Shutdown::Write);
        }
        requests.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
        server.write_all(&buffer[..n])?;
    }
}
