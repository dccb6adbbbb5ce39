//! A line to a server that keeps what clients said: headers that the server itself does not show.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The line. It takes connections for as long as the test process lives.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// A line to `server` on a free port.
    ///
    /// # Errors
    /// If there is no port.
    pub fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&heard);
                // A client or a server that went away is its own affair.
                std::thread::spawn(move || carry(client, server, &heard).ok());
            }
        });
        Ok(Self { address, said })
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that clients have said, in the order it came.
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
