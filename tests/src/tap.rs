//! A TCP proxy that records what clients send, such as headers that the server does not show.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The proxy. Accepts connections until the test process ends.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Starts a proxy to `server` on a free port.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&heard);
                // A client or server that disconnects is not an error.
                std::thread::spawn(move || carry(client, server, &heard).ok());
            }
        });
        Ok(Self { address, said })
    }

    /// Address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that clients have sent, in order of arrival.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

fn carry(mut client: TcpStream, server: SocketAddr, said: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    let (mut answers, mut listener) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut answers, &mut listener));
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = client.read(&mut buffer)?;
        if n == 0 {
            return server.shutdown(std::net::Shutdown::Write);
        }
        said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
        server.write_all(&buffer[..n])?;
    }
}
