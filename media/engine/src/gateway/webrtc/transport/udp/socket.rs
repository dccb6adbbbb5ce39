//! The UDP socket of a worker: receives and sends many datagrams per system call, and can be woken
//! from other threads.
//!
//! Makes the system calls directly. `recvmmsg`, `sendmmsg` with `UDP_SEGMENT` (GSO: the kernel or
//! the network card splits one buffer into datagrams of equal size) and `IPV6_PKTINFO` (reply
//! from the address on which the request arrived; `IP_PKTINFO` on a host without IPv6) have no
//! safe wrapper that accepts a different segment size and address per message. All pointers
//! passed to the kernel refer to local arrays or to buffers owned by [`Socket`], and are used
//! within one call only.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Maximum number of datagrams received per system call.
const RECEIVE_MESSAGES: usize = 32;
/// Maximum size of a received datagram. Clients send nothing longer; a longer datagram is truncated
/// and fails its integrity check.
const RECEIVE_BYTES: usize = 2_048;
/// Maximum number of messages sent per system call. Six messages of video fill the send buffer.
const SEND_MESSAGES: usize = 16;
/// Size of the send buffer: one burst for one viewer. A larger buffer would evict the keys of the
/// next viewer from the core's cache.
const SEND_BYTES: usize = 64 << 10;
/// Maximum number of segments per message; the kernel allows 64 (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: u16 = 60;
/// Maximum size of a message; UDP allows 65,507 bytes.
const MAX_MESSAGE_BYTES: usize = 64_000;
/// Requested kernel buffer size per direction; the kernel may limit it (`net.core.wmem_max`).
const KERNEL_BUFFER_BYTES: usize = 4 << 20;
/// Size of a control message buffer in 8-byte words, for `UDP_SEGMENT` (24 bytes) and
/// `IPV6_PKTINFO` (40 bytes).
const CONTROL_WORDS: usize = 8;

/// The remote and the local address of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressPair {
    /// The client's address; IPv4 is not mapped to IPv6.
    pub(crate) remote: SocketAddr,
    local: Ipv6Addr,
    interface_index: u32,
}

impl AddressPair {
    /// Returns this pair without the local address if the kernel would select that address anyway;
    /// messages then need no `PKTINFO`. Queries the kernel, which takes some microseconds; if the
    /// query fails, returns the pair unchanged.
    pub(crate) fn without_default_source(&self) -> Self {
        match kernel_source_address(self.remote) {
            Ok(chosen) if chosen == self.local && self.interface_index == 0 => Self { local: Ipv6Addr::UNSPECIFIED, ..*self },
            _ => *self,
        }
    }
}

/// Returns the source address that the kernel selects for a destination. Sends nothing.
fn kernel_source_address(remote: SocketAddr) -> io::Result<Ipv6Addr> {
    use socket2::{Domain, Protocol, Type};
    let socket = socket2::Socket::new(Domain::for_address(remote), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&remote.into())?;
    Ok(match socket.local_addr()?.as_socket().map(|local| local.ip()) {
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
        None => Ipv6Addr::UNSPECIFIED,
    })
}

/// The address families of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// IPv6, and IPv4 as mapped addresses.
    DualStack,
    /// IPv4 only: the host has no IPv6.
    V4,
}

/// The datagrams received by one system call.
#[derive(Default)]
pub(crate) struct ReceiveBatch {
    bytes: Vec<u8>,
    /// Addresses and length of each datagram.
    datagrams: Vec<(AddressPair, usize)>,
}

impl ReceiveBatch {
    /// Iterates over the datagrams and their addresses, in order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AddressPair, &[u8])> {
        self.datagrams
            .iter()
            .zip(self.bytes.chunks_exact(RECEIVE_BYTES))
            .map(|((pair, len), bytes)| (pair, &bytes[..*len]))
    }

    /// Returns true if nothing was received.
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Returns true if the limit was reached, so that more datagrams may be waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.datagrams.len() == RECEIVE_MESSAGES
    }
}

/// A non-blocking UDP socket with a send buffer and a wake-up event.
pub(crate) struct Socket {
    socket: std::net::UdpSocket,
    family: Family,
    wakeup: std::sync::Arc<Wakeup>,
    spare_batch: ReceiveBatch,
    send_buffer: Vec<u8>,
    used_bytes: usize,
    messages: Vec<Message>,
    gso: bool,
    /// Datagrams that the kernel did not accept; the owner resets it.
    pub(crate) unsent_datagrams: u64,
    /// Payload bytes that the kernel accepted; the owner resets it.
    pub(crate) sent_bytes: u64,
}

struct Message {
    pair: AddressPair,
    offset: usize,
    len: usize,
    /// Size of every datagram except the last.
    segment_bytes: usize,
    segments: u16,
    /// True after a shorter datagram was added, which must be the last.
    closed: bool,
}

/// Wakes the thread that waits for its socket (an eventfd).
#[derive(Debug)]
pub(crate) struct Wakeup(OwnedFd);

impl Wakeup {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just created and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes the thread. Several calls before it wakes have the effect of one.
    pub(crate) fn wake(&self) {
        let one = 1_u64;
        // SAFETY: eight readable bytes. If the counter is saturated, the thread is about
        // to wake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: eight writable bytes.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
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
        use socket2::{Domain, Protocol, Type};
        let (domain, any, level, option) = match family {
            Family::DualStack => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            Family::V4 => (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED), libc::IPPROTO_IP, libc::IP_PKTINFO),
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
        let on: libc::c_int = 1;
        // SAFETY: the option expects an int, and the length matches.
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
            wakeup: std::sync::Arc::new(Wakeup::new()?),
            spare_batch: ReceiveBatch::default(),
            send_buffer: vec![0; SEND_BYTES],
            used_bytes: 0,
            messages: Vec::with_capacity(SEND_MESSAGES),
            gso: true,
            unsent_datagrams: 0,
            sent_bytes: 0,
        })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub(crate) fn wake_handle(&self) -> std::sync::Arc<Wakeup> {
        std::sync::Arc::clone(&self.wakeup)
    }

    /// Waits for a datagram, a call of [`Wakeup::wake`] or the timeout. Returns true if datagrams
    /// may be available.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [pollfd_for(&self.wakeup.0), pollfd_for(&self.socket)];
        self.poll(&mut fds, timeout);
        fds[1].revents != 0
    }

    /// Waits for a call of [`Wakeup::wake`] or the timeout, ignoring received datagrams.
    pub(crate) fn wait_without_reading(&self, timeout: Duration) {
        self.poll(&mut [pollfd_for(&self.wakeup.0)], timeout);
    }

    /// Polls `fds`. The first must be the wake-up event, which is cleared.
    fn poll(&self, fds: &mut [libc::pollfd], timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: the length matches the entries; there is no signal mask. An interrupted wait
        // looks like a timeout.
        unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const timeout, std::ptr::null()) };
        if fds[0].revents != 0 {
            self.wakeup.clear();
        }
    }

    /// Receives up to one batch of datagrams without waiting. Return the batch with
    /// [`Socket::recycle`].
    pub(crate) fn receive(&mut self) -> ReceiveBatch {
        let mut batch = std::mem::take(&mut self.spare_batch);
        batch.bytes.resize(RECEIVE_MESSAGES * RECEIVE_BYTES, 0);
        batch.datagrams.clear();
        // SAFETY: plain data for which all zeros is a valid value.
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
        // SAFETY: every header points to a name, a buffer and a control area of the length it
        // gives; all outlive the call.
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
            let (local, interface_index) = local_address(&headers[i].msg_hdr);
            let remote = remote_address(&names[i]);
            batch.datagrams.push((AddressPair { remote, local, interface_index }, len));
        }
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
    pub(crate) fn reserve_datagram(&mut self, pair: &AddressPair, len: usize) -> &mut [u8] {
        debug_assert!(len < 2_048);
        if self.used_bytes + len > SEND_BYTES {
            self.flush();
        }
        let offset = self.used_bytes;
        self.used_bytes += len;
        let appended = self.messages.last_mut().is_some_and(|last| {
            let fits = !last.closed
                && len <= last.segment_bytes
                && last.segments < MAX_SEGMENTS
                && last.len + len <= MAX_MESSAGE_BYTES
                && last.pair == *pair;
            if fits {
                last.len += len;
                last.segments += 1;
                last.closed = len < last.segment_bytes;
            }
            fits
        });
        if !appended {
            if self.messages.len() == SEND_MESSAGES {
                self.used_bytes = offset;
                self.flush();
                self.used_bytes = len;
                self.messages.push(Message { pair: *pair, offset: 0, len, segment_bytes: len, segments: 1, closed: false });
                return &mut self.send_buffer[..len];
            }
            self.messages.push(Message { pair: *pair, offset, len, segment_bytes: len, segments: 1, closed: false });
        }
        &mut self.send_buffer[offset..offset + len]
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
            self.split_messages();
        }
        let mut done = 0;
        while done < self.messages.len() {
            match self.send_messages_from(done) {
                Ok(sent) => {
                    let taken = &self.messages[done..done + sent];
                    self.sent_bytes += taken.iter().map(|m| m.len as u64).sum::<u64>();
                    done += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent_datagrams += self.messages[done..].iter().map(|m| u64::from(m.segments)).sum::<u64>();
                    break;
                }
                // A device without checksum offload refuses segmentation with EIO (Linux udp(7)).
                Err(e) if e.raw_os_error() == Some(libc::EIO) && self.messages[done].segments > 1 => {
                    log::warn!(err:% = e; "no segmentation offload, sending datagrams separately");
                    self.gso = false;
                    self.messages.drain(..done);
                    self.split_messages();
                    done = 0;
                }
                // An unreachable viewer or a firewall: only this message is lost.
                Err(_) => {
                    self.unsent_datagrams += u64::from(self.messages[done].segments);
                    done += 1;
                }
            }
        }
        self.messages.clear();
        self.used_bytes = 0;
    }

    fn split_messages(&mut self) {
        let whole = std::mem::take(&mut self.messages);
        for m in whole {
            let mut offset = m.offset;
            while offset < m.offset + m.len {
                let len = m.segment_bytes.min(m.offset + m.len - offset);
                self.messages.push(Message { pair: m.pair, offset, len, segment_bytes: len, segments: 1, closed: true });
                offset += len;
            }
        }
    }

    /// Sends the messages from `first` on with one system call. Returns the number that
    /// the kernel accepted.
    fn send_messages_from(&self, first: usize) -> io::Result<usize> {
        let messages = &self.messages[first..];
        let messages = &messages[..messages.len().min(SEND_MESSAGES)];
        // SAFETY: plain data for which all zeros is a valid value.
        let mut names: [libc::sockaddr_in6; SEND_MESSAGES] = unsafe { zeroed() };
        let mut controls = [[0_u64; CONTROL_WORDS]; SEND_MESSAGES];
        // SAFETY: as above.
        let mut iovecs: [libc::iovec; SEND_MESSAGES] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; SEND_MESSAGES] = unsafe { zeroed() };
        for (i, m) in messages.iter().enumerate() {
            let name_len = write_sockaddr(&mut names[i], m.pair.remote, self.family);
            let bytes = &self.send_buffer[m.offset..m.offset + m.len];
            // The kernel only reads from the buffer.
            iovecs[i] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut names[i]).cast();
            header.msg_namelen = name_len;
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_controllen = write_cmsgs(&mut controls[i], m, self.family) as _;
        }
        // SAFETY: every header points to a name, a buffer and a control area of the length it
        // gives; all outlive the call.
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

/// Writes the control messages of a message: the source address unless the kernel selects it, and
/// the segment size if there is more than one segment. Returns their length in bytes.
fn write_cmsgs(area: &mut [u64; CONTROL_WORDS], m: &Message, family: Family) -> usize {
    let source = match family {
        _ if m.pair.local.is_unspecified() => 0,
        Family::DualStack => {
            // SAFETY: plain data for which all zeros is a valid value.
            let mut info: libc::in6_pktinfo = unsafe { zeroed() };
            info.ipi6_addr.s6_addr = m.pair.local.octets();
            info.ipi6_ifindex = m.pair.interface_index;
            // SAFETY: the area is empty and has space for this and one more control message.
            unsafe { write_cmsg(area, 0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) }
        }
        Family::V4 => {
            let local = m.pair.local.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            // SAFETY: plain data for which all zeros is a valid value.
            let mut info: libc::in_pktinfo = unsafe { zeroed() };
            info.ipi_spec_dst.s_addr = u32::from_ne_bytes(local.octets());
            // SAFETY: as above.
            unsafe { write_cmsg(area, 0, libc::IPPROTO_IP, libc::IP_PKTINFO, info) }
        }
    };
    if m.segments > 1 {
        // SAFETY: `source` is the end of the first control message, or 0 if there is none.
        return unsafe { write_cmsg(area, source, libc::SOL_UDP, libc::UDP_SEGMENT, m.segment_bytes as u16) };
    }
    source
}

/// Writes one control message at the byte offset `at`. Returns the offset of the next one.
///
/// # Safety
/// `at` must be 0 or a value returned by this function, and the control message must fit: the 64
/// bytes of `area`, aligned to 8, hold one of 40 (or 32) bytes and one of 24 bytes.
unsafe fn write_cmsg<T>(area: &mut [u64; CONTROL_WORDS], at: usize, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: guaranteed by the caller; CMSG_SPACE and CMSG_LEN only compute lengths.
    unsafe {
        let entry: *mut libc::cmsghdr = area.as_mut_ptr().cast::<u8>().add(at).cast();
        (*entry).cmsg_level = level;
        (*entry).cmsg_type = kind;
        (*entry).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(entry).cast::<T>().write_unaligned(value);
        at + libc::CMSG_SPACE(size_of::<T>() as u32) as usize
    }
}

/// Returns a poll entry for readability.
fn pollfd_for(file: &impl std::os::fd::AsRawFd) -> libc::pollfd {
    libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Returns the destination address and interface index of a received datagram. If the kernel did
/// not report it, the address is unspecified, so that the kernel selects the source of replies.
fn local_address(header: &libc::msghdr) -> (Ipv6Addr, u32) {
    // SAFETY: the header was filled by recvmmsg and its control area is still valid; the macros
    // stay within msg_controllen.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(header);
        while !entry.is_null() {
            match ((*entry).cmsg_level, (*entry).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(entry).cast::<libc::in6_pktinfo>().read_unaligned();
                    let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    // Only a link-local address needs its interface; otherwise the routing
                    // table selects it.
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

/// Returns the source address of a received datagram; IPv4 is not mapped to IPv6.
fn remote_address(name: &libc::sockaddr_in6) -> SocketAddr {
    if i32::from(name.sin6_family) == libc::AF_INET {
        // SAFETY: the kernel has written a shorter address of this family, and both types are plain
        // data with the same alignment.
        let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
        return SocketAddr::from((name.sin_addr.s_addr.to_ne_bytes(), u16::from_be(name.sin_port)));
    }
    let (ip, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
    match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, port)),
        None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
    }
}

/// Writes the destination address of a message. Returns its length in bytes.
fn write_sockaddr(name: &mut libc::sockaddr_in6, peer: SocketAddr, family: Family) -> libc::socklen_t {
    let ip = match (peer.ip(), family) {
        (IpAddr::V4(v4), Family::V4) => {
            // SAFETY: shorter, with the same alignment, and plain data.
            let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = peer.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(v4.octets());
            return size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        (IpAddr::V4(v4), Family::DualStack) => v4.to_ipv6_mapped(),
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

    #[test]
    fn datagrams_are_sent_separately_without_segmentation_offload() {
        let mut socket = Socket::bind(0).unwrap();
        let pair = AddressPair { remote: "127.0.0.1:9".parse().unwrap(), local: Ipv6Addr::UNSPECIFIED, interface_index: 0 };
        for size in [500, 500, 200, 500] {
            socket.reserve_datagram(&pair, size);
        }
        let shape = |s: &Socket| s.messages.iter().map(|m| (m.offset, m.len, m.segments)).collect::<Vec<_>>();
        assert_eq!(shape(&socket), [(0, 1_200, 3), (1_200, 500, 1)]);
        socket.split_messages();
        assert_eq!(shape(&socket), [(0, 500, 1), (500, 500, 1), (1_000, 200, 1), (1_200, 500, 1)]);
    }

    #[test]
    fn wake_up_before_the_wait_is_not_lost() {
        let socket = Socket::bind(0).unwrap();
        socket.wake_handle().wake();
        let begin = std::time::Instant::now();
        assert!(!socket.wait(Duration::from_secs(60)));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
