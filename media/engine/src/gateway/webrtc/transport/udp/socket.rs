//! The UDP socket of one worker, with its send queue, its receive buffers and its wake-up event.
//!
//! The worker queues datagrams and flushes them, and receives batches. Knows no unsafe code, no
//! session and no protocol.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Type};

use crate::gateway::webrtc::transport::udp::address_pair::AddressPair;
use crate::gateway::webrtc::transport::udp::gso::SendQueue;
use crate::gateway::webrtc::transport::udp::mmsg;
use crate::gateway::webrtc::transport::udp::receive_batch::ReceiveBatch;
use crate::gateway::webrtc::transport::udp::sockaddr::Family;
use crate::gateway::webrtc::transport::udp::wakeup::Wakeup;

/// Requested kernel buffer size per direction; the kernel may limit it (`net.core.wmem_max`).
const KERNEL_BUFFER_BYTES: usize = 4 << 20;

/// A non-blocking UDP socket with a send buffer and a wake-up event.
pub(crate) struct Socket {
    socket: UdpSocket,
    family: Family,
    wakeup: Arc<Wakeup>,
    spare_batch: ReceiveBatch,
    send_queue: SendQueue,
    gso: bool,
    /// Datagrams that the kernel did not accept; the owner resets it.
    pub(crate) unsent_datagrams: u64,
    /// Payload bytes that the kernel accepted; the owner resets it.
    pub(crate) sent_bytes: u64,
}

impl Socket {
    /// Binds IPv6 and IPv4, or IPv4 only on a host without IPv6. Port 0 selects a free port.
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        match Self::open(Family::DualStack, port) {
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => Self::open(Family::V4, port),
            result => result,
        }
    }

    fn open(family: Family, port: u16) -> io::Result<Self> {
        let (domain, any) = match family {
            Family::DualStack => (Domain::IPV6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
            Family::V4 => (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
        };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if family == Family::DualStack {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // The kernel limits these to what it allows. Smaller buffers lose more in bursts, which is
        // no reason not to start.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
        socket.bind(&SocketAddr::new(any, port).into())?;
        match family {
            Family::DualStack => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            Family::V4 => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        }
        Ok(Self {
            socket: socket.into(),
            family,
            wakeup: Arc::new(Wakeup::new()?),
            spare_batch: ReceiveBatch::default(),
            send_queue: SendQueue::new(),
            gso: true,
            unsent_datagrams: 0,
            sent_bytes: 0,
        })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub(crate) fn wake_handle(&self) -> Arc<Wakeup> {
        Arc::clone(&self.wakeup)
    }

    /// Waits for a datagram, a call of [`Wakeup::wake`] or the timeout. Returns true if datagrams
    /// may be available.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.wakeup.wait_or_readable(&self.socket, timeout)
    }

    /// Waits for a call of [`Wakeup::wake`] or the timeout, ignoring received datagrams.
    pub(crate) fn wait_without_reading(&self, timeout: Duration) {
        self.wakeup.wait(timeout);
    }

    /// Receives up to one batch of datagrams without waiting. Return the batch with
    /// [`Socket::recycle`].
    pub(crate) fn receive(&mut self) -> ReceiveBatch {
        let mut batch = std::mem::take(&mut self.spare_batch);
        mmsg::receive(&self.socket, &mut batch);
        batch
    }

    /// Returns the buffers of a batch for reuse.
    pub(crate) fn recycle(&mut self, batch: ReceiveBatch) {
        self.spare_batch = batch;
    }

    /// Reserves space in the send buffer for a datagram of `len` bytes, which must be below 2,048.
    /// The datagram is sent by the next [`Socket::flush`], or earlier if the buffer is full.
    /// Consecutive datagrams with the same addresses form one message if all but the last have
    /// equal size and the last is not larger.
    #[inline]
    pub(crate) fn reserve_datagram(&mut self, pair: &AddressPair, len: usize) -> &mut [u8] {
        debug_assert!(len < 2_048);
        let offset = self.send_queue.reserve(pair, len).unwrap_or_else(|| {
            self.flush();
            self.send_queue.reserve(pair, len).expect("an empty queue has space for a datagram")
        });
        self.send_queue.datagram_mut(offset, len)
    }

    /// Copies a datagram to the send buffer; the next [`Socket::flush`] sends it. Datagrams of
    /// 2,048 bytes or more are dropped.
    pub(crate) fn queue_datagram(&mut self, pair: &AddressPair, bytes: &[u8]) {
        if bytes.len() < 2_048 {
            self.reserve_datagram(pair, bytes.len()).copy_from_slice(bytes);
        }
    }

    /// Sends the buffered datagrams. Datagrams for which the kernel has no buffer space are lost,
    /// as on any network; viewers request them again.
    pub(crate) fn flush(&mut self) {
        if !self.gso {
            self.send_queue.split_messages(0);
        }
        let mut done = 0;
        while done < self.send_queue.messages().len() {
            let sent = mmsg::send(&self.socket, self.family, self.send_queue.transmits(done));
            let unsent = &self.send_queue.messages()[done..];
            match sent {
                Ok(sent) => {
                    self.sent_bytes += unsent[..sent].iter().map(|m| m.len as u64).sum::<u64>();
                    done += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent_datagrams += unsent.iter().map(|m| u64::from(m.segments)).sum::<u64>();
                    break;
                }
                // A device without checksum offload refuses segmentation with EIO (Linux udp(7)).
                Err(e) if e.raw_os_error() == Some(libc::EIO) && unsent[0].segments > 1 => {
                    log::warn!(err:% = e; "no segmentation offload, sending datagrams separately");
                    self.gso = false;
                    self.send_queue.split_messages(done);
                    done = 0;
                }
                // An unreachable viewer or a firewall: only this message is lost.
                Err(_) => {
                    self.unsent_datagrams += u64::from(unsent[0].segments);
                    done += 1;
                }
            }
        }
        self.send_queue.clear();
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends datagrams of these sizes to a plain socket at `ip` and returns the sizes it received.
    /// `needs_source`: the kernel would select another source address.
    fn send_and_receive(mut socket: Socket, ip: IpAddr, sizes: &[usize], needs_source: bool) -> Vec<usize> {
        let peer = std::net::UdpSocket::bind((ip, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"hello", (ip, socket.port().unwrap())).unwrap();
        assert!(socket.wait(Duration::from_secs(5)));
        let batch = socket.receive();
        let (pair, bytes) = batch.iter().next().unwrap();
        assert_eq!((pair.remote, bytes), (peer.local_addr().unwrap(), &b"hello"[..]));
        let pair = pair.without_default_source();
        assert_eq!(!pair.local.is_unspecified(), needs_source);
        for (i, &size) in sizes.iter().enumerate() {
            socket.reserve_datagram(&pair, size).fill(i as u8);
        }
        socket.flush();
        assert_eq!((socket.unsent_datagrams, socket.sent_bytes), (0, sizes.iter().sum::<usize>() as u64));
        let mut buffer = [0; 2_048];
        let mut got = Vec::new();
        for i in 0..sizes.len() {
            let (len, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(from.ip(), ip);
            assert!(buffer[..len].iter().all(|&b| b == i as u8), "datagram {i}");
            got.push(len);
        }
        got
    }

    #[test]
    fn runs_of_equal_datagrams_arrive_separately_and_unchanged() {
        let sizes: Vec<usize> =
            [&[1_200; 10][..], &[300], &[90], &[200; 130], &[7], &[1_000; 2], &[1_100], &[100; 5]].concat();
        let bind = || Socket::bind(0).unwrap();
        // As on a host without IPv6.
        let bind_v4 = || Socket::open(Family::V4, 0).unwrap();
        assert_eq!(send_and_receive(bind(), "127.0.0.1".parse().unwrap(), &sizes, false), sizes);
        assert_eq!(send_and_receive(bind(), "::1".parse().unwrap(), &sizes[..20], false), sizes[..20]);
        assert_eq!(send_and_receive(bind_v4(), "127.0.0.1".parse().unwrap(), &sizes[..20], false), sizes[..20]);
        // An address that the kernel would not select by default.
        assert_eq!(send_and_receive(bind(), "127.0.0.9".parse().unwrap(), &sizes[..20], true), sizes[..20]);
        assert_eq!(send_and_receive(bind_v4(), "127.0.0.9".parse().unwrap(), &sizes, true), sizes);
    }
}
