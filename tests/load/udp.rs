//! A UDP socket that receives several packets in one read (`UDP_GRO`, Linux 5.0).
//!
//! Without GRO, the kernel would split a server's segmented sends in the server's CPU time, and the
//! tool would measure itself.

use std::cell::RefCell;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use tokio::net::UdpSocket;

/// One viewer's socket on the loopback interface.
#[derive(Debug)]
pub(crate) struct Socket(UdpSocket);

impl Socket {
    /// Binds to a free port.
    ///
    /// # Errors
    /// If no port or file descriptor is available.
    pub(crate) fn bind() -> Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        // Room for a burst of key frames. The forced variant needs root.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
        }
        Ok(Self(UdpSocket::from_std(socket)?))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Connects to `peer`: sends go to it, and packets from other peers are dropped.
    pub(crate) async fn connect(&self, peer: SocketAddr) -> Result<()> {
        Ok(self.0.connect(peer).await?)
    }

    pub(crate) async fn send(&self, packet: &[u8]) -> Result<()> {
        self.0.send(packet).await?;
        Ok(())
    }

    /// Waits for packets and calls `on` for each packet of one read.
    ///
    /// # Errors
    /// If receiving fails, or the peer's port is closed.
    pub(crate) async fn receive(&self, mut on: impl FnMut(&[u8])) -> Result<()> {
        loop {
            self.0.readable().await?;
            let read = self.0.try_io(tokio::io::Interest::READABLE, || {
                BUFFER.with_borrow_mut(|buffer| {
                    let (length, segment) = read(&self.0, buffer)?;
                    buffer[..length].chunks(segment).for_each(&mut on);
                    Ok(())
                })
            });
            match read {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Calls `recvmsg` once; returns the number of bytes, and the length of each packet but the last.
fn read(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, usize)> {
    let mut control = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let segment = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
        _ => None,
    });
    Ok((message.bytes, segment.unwrap_or(message.bytes).max(1)))
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

const RECEIVE_BYTES: usize = 2 << 20;
