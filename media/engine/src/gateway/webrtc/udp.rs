//! One UDP socket of a worker: many datagrams in by one call, many out by one call, and a way to wake the worker.
//!
//! The only file of this room that speaks to the kernel by hand: `recvmmsg`, `sendmmsg` with `UDP_SEGMENT` (one buffer, cut by
//! the kernel or the card into datagrams of equal size) and `IPV6_PKTINFO` (answer from the address that was asked; `IP_PKTINFO`
//! on a host without IPv6) have no safe wrapper that takes a different segment size and address per message. All pointers handed out below point into
//! vectors owned by the same struct, whose lengths are fixed when it is made, and are used within one call.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Datagrams received by one call.
const RECEIVE_MESSAGES: usize = 32;
/// Nothing a viewer sends is longer; what is longer is cut and fails its integrity check.
const RECEIVE_BYTES: usize = 2_048;
/// Messages sent by one call: of pictures, six fill the room below.
const SEND_MESSAGES: usize = 16;
/// Bytes gathered before they are sent: a burst for one viewer. More would push the keys of the next out of the core's cache.
const SEND_BYTES: usize = 64 << 10;
/// Segments of one message at most; the kernel allows 64 (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: u16 = 60;
/// Bytes of one message at most; UDP allows 65,507.
const MAX_MESSAGE_BYTES: usize = 64_000;
/// Wanted from the kernel for each direction; it may give less (`net.core.wmem_max`).
const KERNEL_BUFFER_BYTES: usize = 4 << 20;
/// Room for `UDP_SEGMENT` (24 bytes) and `IPV6_PKTINFO` (40 bytes), in words.
const CONTROL_WORDS: usize = 8;

/// Both ends of a conversation: where the viewer is, and which of our addresses it speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    /// The viewer. IPv4 as IPv4.
    pub(super) peer: SocketAddr,
    local: Ipv6Addr,
    interface: u32,
}

impl Path {
    /// The same without our address, if the kernel takes that one by itself: it then need not be told with every message. It
    /// is asked, which takes some microseconds; if it does not know, the path stays as it is.
    pub(super) fn shortened(&self) -> Self {
        match chosen_for(self.peer) {
            Ok(chosen) if chosen == self.local && self.interface == 0 => Self { local: Ipv6Addr::UNSPECIFIED, ..*self },
            _ => *self,
        }
    }
}

/// Which of our addresses the kernel takes towards a peer. Nothing is sent.
fn chosen_for(peer: SocketAddr) -> io::Result<Ipv6Addr> {
    use socket2::{Domain, Protocol, Type};
    let socket = socket2::Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&peer.into())?;
    Ok(match socket.local_addr()?.as_socket().map(|local| local.ip()) {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
        None => Ipv6Addr::UNSPECIFIED,
    })
}

/// What the socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Both, IPv4 as mapped addresses.
    Both,
    /// IPv4 alone: the host has no IPv6.
    V4,
}

/// What one call has received.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Who sent each, and its length.
    datagrams: Vec<(Path, usize)>,
}

impl Batch {
    /// Each datagram and its way, as they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.datagrams
            .iter()
            .zip(self.bytes.chunks_exact(RECEIVE_BYTES))
            .map(|((path, len), bytes)| (path, &bytes[..*len]))
    }

    /// True if nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// True if there may be more to receive.
    pub(super) fn is_full(&self) -> bool {
        self.datagrams.len() == RECEIVE_MESSAGES
    }
}

/// The socket, its wake-up call, and what is about to be sent.
pub(super) struct Socket {
    socket: std::net::UdpSocket,
    family: Family,
    wake: std::sync::Arc<Wake>,
    spare: Batch,
    out: Vec<u8>,
    used: usize,
    messages: Vec<Message>,
    segmentation: bool,
    /// Datagrams the kernel did not take since it was last asked.
    pub(super) unsent: u64,
    /// Bytes of datagrams it took.
    pub(super) sent_bytes: u64,
}

struct Message {
    path: Path,
    begin: usize,
    len: usize,
    /// Bytes of every datagram but the last.
    segment: usize,
    segments: u16,
    /// A shorter datagram was added: it must stay the last.
    closed: bool,
}

/// Wakes the thread that waits for its socket.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Wake {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and that nobody else holds.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes it. Twice is once.
    pub(super) fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes. A full counter means that the thread is about to wake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: eight writable bytes.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl Socket {
    /// Binds both IPv4 and IPv6, or IPv4 on a host that has no other; port 0 takes any.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        match Self::open(Family::Both, port) {
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => Self::open(Family::V4, port),
            result => result,
        }
    }

    fn open(family: Family, port: u16) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Type};
        let (domain, any, level, option) = match family {
            Family::Both => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            Family::V4 => (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED), libc::IPPROTO_IP, libc::IP_PKTINFO),
        };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if family == Family::Both {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // The kernel cuts these to what it allows; less is slower under bursts, and no reason not to start.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
        socket.bind(&SocketAddr::new(any, port).into())?;
        let on: libc::c_int = 1;
        // SAFETY: the option takes an int, and its length is given.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            socket: socket.into(),
            family,
            wake: std::sync::Arc::new(Wake::new()?),
            spare: Batch::default(),
            out: vec![0; SEND_BYTES],
            used: 0,
            messages: Vec::with_capacity(SEND_MESSAGES),
            segmentation: true,
            unsent: 0,
            sent_bytes: 0,
        })
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub(super) fn wake_handle(&self) -> std::sync::Arc<Wake> {
        std::sync::Arc::clone(&self.wake)
    }

    /// Waits until a datagram has come, somebody calls [`Wake::wake`], or the time is over. True if there may be datagrams.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [awaited(&self.wake.0), awaited(&self.socket)];
        self.poll(&mut fds, timeout);
        fds[1].revents != 0
    }

    /// The same, but datagrams do not count.
    pub(super) fn wait_deaf(&self, timeout: Duration) {
        self.poll(&mut [awaited(&self.wake.0)], timeout);
    }

    /// The first is the wake-up call, which is over when heard.
    fn poll(&self, fds: &mut [libc::pollfd], timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: as many entries as said; no signal mask. An interrupted wait looks like one that timed out.
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const timeout, std::ptr::null()) };
        if fds[0].revents != 0 {
            self.wake.clear();
        }
    }

    /// Receives what has come, at most one batch. Give it [back](Self::recycle).
    pub(super) fn receive(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.spare);
        batch.bytes.resize(RECEIVE_MESSAGES * RECEIVE_BYTES, 0);
        batch.datagrams.clear();
        // SAFETY: all of these are plain data for which zero is a value.
        let mut names: [libc::sockaddr_in6; RECEIVE_MESSAGES] = unsafe { zeroed() };
        let mut controls = [[0_u64; CONTROL_WORDS]; RECEIVE_MESSAGES];
        // SAFETY: as above.
        let mut iovecs: [libc::iovec; RECEIVE_MESSAGES] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; RECEIVE_MESSAGES] = unsafe { zeroed() };
        for (i, chunk) in batch.bytes.chunks_exact_mut(RECEIVE_BYTES).enumerate() {
            iovecs[i] = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: RECEIVE_BYTES };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
        }
        // SAFETY: every header points to a name, a buffer and a control area of the length it gives, all alive here.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RECEIVE_MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        for i in 0..count {
            let len = (headers[i].msg_len as usize).min(RECEIVE_BYTES);
            let (local, interface) = local_of(&headers[i].msg_hdr);
            let peer = peer_of(&names[i]);
            batch.datagrams.push((Path { peer, local, interface }, len));
        }
        batch
    }

    /// Takes back the room of a batch that was looked at.
    pub(super) fn recycle(&mut self, batch: Batch) {
        self.spare = batch;
    }

    /// Room for one datagram of `len` bytes to this path; it leaves with the next [`Socket::flush`], or before if there is
    /// no more room. Datagrams of equal size that follow each other on one path leave as one message.
    ///
    /// `len` must be below 2,048.
    pub(super) fn datagram(&mut self, path: &Path, len: usize) -> &mut [u8] {
        debug_assert!(len < 2_048);
        if self.used + len > SEND_BYTES {
            self.flush();
        }
        let begin = self.used;
        self.used += len;
        let joined = self.messages.last_mut().is_some_and(|last| {
            let fits = !last.closed
                && len <= last.segment
                && last.segments < MAX_SEGMENTS
                && last.len + len <= MAX_MESSAGE_BYTES
                && last.path == *path;
            if fits {
                last.len += len;
                last.segments += 1;
                last.closed = len < last.segment;
            }
            fits
        });
        if !joined {
            if self.messages.len() == SEND_MESSAGES {
                self.used = begin;
                self.flush();
                self.used = len;
                self.messages.push(Message { path: *path, begin: 0, len, segment: len, segments: 1, closed: false });
                return &mut self.out[..len];
            }
            self.messages.push(Message { path: *path, begin, len, segment: len, segments: 1, closed: false });
        }
        &mut self.out[begin..begin + len]
    }

    /// Sends one datagram with the next flush.
    pub(super) fn send(&mut self, path: &Path, bytes: &[u8]) {
        if bytes.len() < 2_048 {
            self.datagram(path, bytes.len()).copy_from_slice(bytes);
        }
    }

    /// Sends what was gathered. What the kernel has no room for is lost, as on any network; viewers ask again.
    pub(super) fn flush(&mut self) {
        if !self.segmentation {
            self.split_messages();
        }
        let mut done = 0;
        while done < self.messages.len() {
            match self.send_from(done) {
                Ok(sent) => {
                    let taken = &self.messages[done..done + sent];
                    self.sent_bytes += taken.iter().map(|m| m.len as u64).sum::<u64>();
                    done += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent += self.messages[done..].iter().map(|m| u64::from(m.segments)).sum::<u64>();
                    break;
                }
                // A device without checksum offload refuses segmentation with EIO (Linux udp(7)).
                Err(e) if e.raw_os_error() == Some(libc::EIO) && self.messages[done].segments > 1 => {
                    log::warn!(err:% = e; "no segmentation offload here, sending packet by packet");
                    self.segmentation = false;
                    self.messages.drain(..done);
                    self.split_messages();
                    done = 0;
                }
                // An unreachable viewer, a firewall: this message alone is lost.
                Err(_) => {
                    self.unsent += u64::from(self.messages[done].segments);
                    done += 1;
                }
            }
        }
        self.messages.clear();
        self.used = 0;
    }

    fn split_messages(&mut self) {
        let whole = std::mem::take(&mut self.messages);
        for m in whole {
            let mut begin = m.begin;
            while begin < m.begin + m.len {
                let len = m.segment.min(m.begin + m.len - begin);
                self.messages.push(Message { path: m.path, begin, len, segment: len, segments: 1, closed: true });
                begin += len;
            }
        }
    }

    /// One call for the messages from `first` on. The number the kernel took.
    fn send_from(&self, first: usize) -> io::Result<usize> {
        let messages = &self.messages[first..];
        let messages = &messages[..messages.len().min(SEND_MESSAGES)];
        // SAFETY: plain data for which zero is a value.
        let mut names: [libc::sockaddr_in6; SEND_MESSAGES] = unsafe { zeroed() };
        let mut controls = [[0_u64; CONTROL_WORDS]; SEND_MESSAGES];
        // SAFETY: as above.
        let mut iovecs: [libc::iovec; SEND_MESSAGES] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; SEND_MESSAGES] = unsafe { zeroed() };
        for (i, m) in messages.iter().enumerate() {
            let name_bytes = write_name(&mut names[i], m.path.peer, self.family);
            let bytes = &self.out[m.begin..m.begin + m.len];
            // The kernel only reads from it.
            iovecs[i] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = name_bytes;
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_controllen = write_control(&mut controls[i], m, self.family) as _;
        }
        // SAFETY: every header points to a name, a buffer and a control area of the length it gives, all alive here.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Fills a control area: the source address unless the kernel chooses it, then the segment size if there is more than one. Gives
/// its length in bytes.
fn write_control(area: &mut [u64; CONTROL_WORDS], m: &Message, family: Family) -> usize {
    let source = match family {
        _ if m.path.local.is_unspecified() => 0,
        Family::Both => {
            // SAFETY: plain data for which zero is a value.
            let mut info: libc::in6_pktinfo = unsafe { zeroed() };
            info.ipi6_addr.s6_addr = m.path.local.octets();
            info.ipi6_ifindex = m.path.interface;
            // SAFETY: the area is empty and has room for this and one more.
            unsafe { write_entry(area, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) }
        }
        Family::V4 => {
            let local = m.path.local.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            // SAFETY: plain data for which zero is a value.
            let mut info: libc::in_pktinfo = unsafe { zeroed() };
            info.ipi_spec_dst.s_addr = u32::from_ne_bytes(local.octets());
            // SAFETY: as above.
            unsafe { write_entry(area, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, info) }
        }
    };
    if m.segments > 1 {
        // SAFETY: behind the first, if there is one.
        return unsafe { write_entry(area, source, libc::SOL_UDP, libc::UDP_SEGMENT, m.segment as u16) };
    }
    source
}

/// Writes one entry of a control area `at` bytes from its beginning. Gives where the next one goes.
///
/// # Safety
/// `at` is 0 or what this has given, and the area has room: its 64 bytes, aligned to 8, hold 40 (or 32) and 24.
unsafe fn write_entry<T>(area: &mut [u64; CONTROL_WORDS], at: usize, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: as the caller promises; CMSG_SPACE and CMSG_LEN only count.
    unsafe {
        let entry: *mut libc::cmsghdr = area.as_mut_ptr().cast::<u8>().add(at).cast();
        (*entry).cmsg_level = level;
        (*entry).cmsg_type = kind;
        (*entry).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(entry).cast::<T>().write_unaligned(value);
        at + libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}

/// An entry for a wait that ends when there is something to read.
fn awaited(file: &impl std::os::fd::AsRawFd) -> libc::pollfd {
    libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// The address a datagram was sent to, if the kernel says so; else unspecified, which lets it choose.
fn local_of(header: &libc::msghdr) -> (Ipv6Addr, u32) {
    // SAFETY: the header was filled by recvmmsg and its control area is alive; the macros stay within msg_controllen.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(header);
        while !entry.is_null() {
            match ((*entry).cmsg_level, (*entry).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(entry).cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    // Only a link-local address needs its interface; else the routing table knows better.
                    let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                    return (ip, interface as u32);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(entry).cast::<libc::in_pktinfo>().read_unaligned();
                    return (Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).to_ipv6_mapped(), 0);
                }
                _ => entry = libc::CMSG_NXTHDR(header, entry),
            }
        }
    }
    (Ipv6Addr::UNSPECIFIED, 0)
}

/// Who sent a datagram; IPv4 as IPv4.
fn peer_of(name: &libc::sockaddr_in6) -> SocketAddr {
    if i32::from(name.sin6_family) == libc::AF_INET {
        // SAFETY: the kernel has written a shorter name of this family, and both are plain data with the same alignment.
        let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
        return SocketAddr::from((name.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.sin_port)));
    }
    let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
    match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, port)),
        None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
    }
}

/// Writes where a message goes. Gives the length of the name.
fn write_name(name: &mut libc::sockaddr_in6, peer: SocketAddr, family: Family) -> libc::socklen_t {
    let ip = match (peer.ip(), family) {
        (IpAddr::V4(v4), Family::V4) => {
            // SAFETY: shorter, with the same alignment, and plain data.
            let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = peer.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
            return size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        (IpAddr::V4(v4), Family::Both) => v4.to_ipv6_mapped(),
        (IpAddr::V6(v6), _) => v6,
    };
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_port = peer.port().to_be();
    name.sin6_addr.s6_addr = ip.octets();
    if let SocketAddr::V6(v6) = peer {
        name.sin6_scope_id = v6.scope_id();
    }
    size_of::<libc::sockaddr_in6>() as libc::socklen_t
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends datagrams of these sizes to a plain socket at `ip` and gives back what it got. `said`: our address must be said, as
    /// the kernel would take another.
    fn echo(mut socket: Socket, ip: IpAddr, sizes: &[usize], said: bool) -> Vec<usize> {
        let peer = std::net::UdpSocket::bind((ip, 0)).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.send_to(b"hello", (ip, socket.port().unwrap())).unwrap();
        assert!(socket.wait(Duration::from_secs(5)));
        let batch = socket.receive();
        let (path, bytes) = batch.iter().next().unwrap();
        assert_eq!((path.peer, bytes), (peer.local_addr().unwrap(), &b"hello"[..]));
        let path = path.shortened();
        assert_eq!(!path.local.is_unspecified(), said);
        for (i, &size) in sizes.iter().enumerate() {
            socket.datagram(&path, size).fill(i as u8);
        }
        socket.flush();
        assert_eq!((socket.unsent, socket.sent_bytes), (0, sizes.iter().sum::<usize>() as u64));
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
    fn runs_of_equal_datagrams_arrive_one_by_one_and_unchanged() {
        let sizes: Vec<usize> =
            [&[1_200; 10][..], &[300], &[90], &[200; 130], &[7], &[1_000; 2], &[1_100], &[100; 5]].concat();
        let bind = || Socket::bind(0).unwrap();
        // As on a host without IPv6.
        let bind_v4 = || Socket::open(Family::V4, 0).unwrap();
        assert_eq!(echo(bind(), "127.0.0.1".parse().unwrap(), &sizes, false), sizes);
        assert_eq!(echo(bind(), "::1".parse().unwrap(), &sizes[..20], false), sizes[..20]);
        assert_eq!(echo(bind_v4(), "127.0.0.1".parse().unwrap(), &sizes[..20], false), sizes[..20]);
        // An address that the kernel would not choose by itself.
        assert_eq!(echo(bind(), "127.0.0.9".parse().unwrap(), &sizes[..20], true), sizes[..20]);
        assert_eq!(echo(bind_v4(), "127.0.0.9".parse().unwrap(), &sizes, true), sizes);
    }

    #[test]
    fn without_segmentation_the_same_datagrams_leave_one_by_one() {
        let mut socket = Socket::bind(0).unwrap();
        let path = Path { peer: "127.0.0.1:9".parse().unwrap(), local: Ipv6Addr::UNSPECIFIED, interface: 0 };
        for size in [500, 500, 200, 500] {
            socket.datagram(&path, size);
        }
        let shape = |s: &Socket| s.messages.iter().map(|m| (m.begin, m.len, m.segments)).collect::<Vec<_>>();
        assert_eq!(shape(&socket), [(0, 1_200, 3), (1_200, 500, 1)]);
        socket.split_messages();
        assert_eq!(shape(&socket), [(0, 500, 1), (500, 500, 1), (1_000, 200, 1), (1_200, 500, 1)]);
    }

    #[test]
    fn a_wake_up_call_before_the_wait_is_not_lost() {
        let socket = Socket::bind(0).unwrap();
        socket.wake_handle().wake();
        let begin = std::time::Instant::now();
        assert!(!socket.wait(Duration::from_secs(60)));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
