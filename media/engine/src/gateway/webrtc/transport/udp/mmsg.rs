//! Receives and sends several datagrams with one system call.
//!
//! Makes the system calls directly: `recvmmsg`, and `sendmmsg` with `UDP_SEGMENT` (GSO: the kernel
//! or the network card splits one buffer into datagrams of equal size) and `IPV6_PKTINFO` (reply
//! from the address on which the request arrived; `IP_PKTINFO` on a host without IPv6) have no safe
//! wrapper that accepts a different segment size and address per message. All pointers passed to
//! the kernel refer to local arrays or to borrowed buffers, and are used within one call only.
//!
//! Must not know how datagrams are grouped into messages.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use crate::gateway::webrtc::transport::udp::address_pair::AddressPair;
use crate::gateway::webrtc::transport::udp::cmsg;
use crate::gateway::webrtc::transport::udp::receive_batch::{RECEIVE_BYTES, RECEIVE_MESSAGES, ReceiveBatch};
use crate::gateway::webrtc::transport::udp::sockaddr::{self, Family};

/// Maximum number of messages sent per system call. Six messages of video fill the send buffer.
pub(super) const SEND_MESSAGES: usize = 16;

/// A message to send: one datagram, or several of equal size to the same address.
pub(super) struct Transmit<'a> {
    pub(super) pair: &'a AddressPair,
    pub(super) contents: &'a [u8],
    /// Size of every datagram except the last, which may be shorter; `None` for one datagram.
    pub(super) segment_bytes: Option<u16>,
}

/// Receives up to one batch of datagrams without waiting. Leaves the batch empty if there are none.
pub(super) fn receive(socket: &UdpSocket, batch: &mut ReceiveBatch) {
    batch.clear();
    let mut names = [sockaddr::EMPTY; RECEIVE_MESSAGES];
    let mut controls = [cmsg::Buffer::EMPTY; RECEIVE_MESSAGES];
    let mut iovecs = [EMPTY_IOVEC; RECEIVE_MESSAGES];
    // SAFETY: plain data for which all zeros is a valid value.
    let mut headers: [libc::mmsghdr; RECEIVE_MESSAGES] = unsafe { zeroed() };
    for (i, slot) in batch.bytes.chunks_exact_mut(RECEIVE_BYTES).enumerate() {
        iovecs[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: RECEIVE_BYTES };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        header.msg_iov = &raw mut iovecs[i];
        header.msg_iovlen = 1;
        header.msg_control = controls[i].as_mut_ptr().cast();
        header.msg_controllen = cmsg::CAPACITY_BYTES as _;
    }
    // SAFETY: `headers` has the given length. Every header points to a name, a buffer and a control
    // area of the length it gives; all outlive the call. A header without a slot has no buffers.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            RECEIVE_MESSAGES as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).unwrap_or(0);
    for i in 0..count {
        let len = (headers[i].msg_len as usize).min(RECEIVE_BYTES);
        let messages = controls[i].messages(headers[i].msg_hdr.msg_controllen as usize);
        let (local, interface_index) = sockaddr::read_destination(messages);
        batch.datagrams.push((AddressPair { remote: sockaddr::read(&names[i]), local, interface_index }, len));
    }
}

/// Sends messages without waiting, at most [`SEND_MESSAGES`]. Returns the number that the kernel
/// accepted.
pub(super) fn send<'a>(
    socket: &UdpSocket,
    family: Family,
    messages: impl Iterator<Item = Transmit<'a>>,
) -> io::Result<usize> {
    let mut names = [sockaddr::EMPTY; SEND_MESSAGES];
    let mut controls = [cmsg::Buffer::EMPTY; SEND_MESSAGES];
    let mut iovecs = [EMPTY_IOVEC; SEND_MESSAGES];
    // SAFETY: plain data for which all zeros is a valid value.
    let mut headers: [libc::mmsghdr; SEND_MESSAGES] = unsafe { zeroed() };
    let mut count = 0;
    for (i, message) in messages.take(SEND_MESSAGES).enumerate() {
        let name_len = sockaddr::write(&mut names[i], message.pair.remote, family);
        // The kernel only reads from the buffer.
        iovecs[i] =
            libc::iovec { iov_base: message.contents.as_ptr().cast_mut().cast(), iov_len: message.contents.len() };
        let control_len = write_control(&mut controls[i], &message, family);
        let header = &mut headers[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = name_len;
        header.msg_iov = &raw mut iovecs[i];
        header.msg_iovlen = 1;
        header.msg_control = controls[i].as_mut_ptr().cast();
        header.msg_controllen = control_len as _;
        count += 1;
    }
    // SAFETY: `headers` has at least the given length. Every header points to a name, a buffer and
    // a control area of the length it gives; all outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes the control messages of a message: the source address unless the kernel selects it, and
/// the segment size if there is more than one segment. Returns their length in bytes.
fn write_control(buffer: &mut cmsg::Buffer, message: &Transmit<'_>, family: Family) -> usize {
    const FITS: &str = "a buffer holds a source address and a segment size";
    let mut encoder = cmsg::Encoder::new(buffer);
    sockaddr::write_source(&mut encoder, message.pair, family).expect(FITS);
    if let Some(segment_bytes) = message.segment_bytes {
        encoder.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment_bytes).expect(FITS);
    }
    encoder.finish()
}

const EMPTY_IOVEC: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
