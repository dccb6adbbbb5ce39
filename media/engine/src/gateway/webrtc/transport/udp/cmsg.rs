//! Control messages of the socket API (Linux cmsg(3)), written to and read from an aligned buffer.
//!
//! ```text
//!   offset  size  content
//!        0    16  cmsghdr: length without the padding, level, type
//!       16     n  value
//!   16 + n        padding to a multiple of 8
//! ```
//!
//! Values go in, bytes for `msg_control` come out, and the reverse. All `unsafe` code for control
//! messages is in this file. Must not know which messages the socket uses.
#![allow(unsafe_code)]

use std::ffi::c_int;

/// Size of a [`Buffer`]: `IPV6_PKTINFO` (40 bytes) and `UDP_SEGMENT` (24 bytes).
pub(super) const CAPACITY_BYTES: usize = 64;
/// Alignment of control messages.
const ALIGNMENT: usize = size_of::<usize>();
/// Offset of the value in a control message.
const VALUE_OFFSET: usize = size_of::<libc::cmsghdr>().next_multiple_of(ALIGNMENT);

/// Types that can be a header or the value of a control message.
///
/// # Safety
/// The type must have no padding, and every bit pattern must be valid.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers without padding: a size and two times 32 bits.
unsafe impl Plain for libc::cmsghdr {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: integers without padding: three times 32 bits.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: integers without padding: 16 bytes and 32 bits.
unsafe impl Plain for libc::in6_pktinfo {}

/// Space for the control messages of one datagram.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Buffer([u8; CAPACITY_BYTES]);

impl Buffer {
    pub(super) const EMPTY: Self = Self([0; CAPACITY_BYTES]);

    /// Returns the address for `msg_control`. The kernel may access [`CAPACITY_BYTES`] there.
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Iterates over the control messages in the first `len` bytes (`msg_controllen`), which the
    /// kernel has written. Ends at a malformed message.
    pub(super) fn messages(&self, len: usize) -> Messages<'_> {
        Messages { rest: &self.0[..len.min(CAPACITY_BYTES)] }
    }
}

/// Does not fit into the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BufferFull;

/// Appends control messages to an empty buffer.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    buffer: &'a mut Buffer,
    len: usize,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer, len: 0 }
    }

    /// Appends a control message.
    ///
    /// # Errors
    /// Fails if the buffer has no space for the message and its padding.
    #[inline]
    pub(super) fn push<T: Plain>(&mut self, level: c_int, kind: c_int, value: T) -> Result<(), BufferFull> {
        let space = VALUE_OFFSET + size_of::<T>().next_multiple_of(ALIGNMENT);
        let entry = self.buffer.0[self.len..].get_mut(..space).ok_or(BufferFull)?;
        let header =
            libc::cmsghdr { cmsg_len: (VALUE_OFFSET + size_of::<T>()) as _, cmsg_level: level, cmsg_type: kind };
        write(entry, header);
        write(&mut entry[VALUE_OFFSET..], value);
        self.len += space;
        Ok(())
    }

    /// Returns the number of bytes written, for `msg_controllen`.
    pub(super) fn finish(self) -> usize {
        self.len
    }
}

/// A received control message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) level: c_int,
    pub(super) kind: c_int,
    value: &'a [u8],
}

impl Message<'_> {
    /// Returns the value, or `None` if it is shorter than a `T`.
    pub(super) fn value<T: Plain>(&self) -> Option<T> {
        read(self.value)
    }
}

/// Iterates over received control messages.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header: libc::cmsghdr = read(self.rest)?;
        let len = header.cmsg_len;
        let value = self.rest.get(VALUE_OFFSET..len)?;
        self.rest = self.rest.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Message { level: header.cmsg_level, kind: header.cmsg_type, value })
    }
}

/// Writes `value` to the start of `bytes`, which must be long enough.
fn write<T: Plain>(bytes: &mut [u8], value: T) {
    let bytes = &mut bytes[..size_of::<T>()];
    // SAFETY: `bytes` has the size of a `T`, which has no padding, so that all bytes stay
    // initialized. The write needs no alignment.
    unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) }
}

/// Reads a `T` from the start of `bytes`, if they are long enough.
fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: `bytes` has the size of a `T`, for which every bit pattern is valid. The read needs
    // no alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PKTINFO: libc::in6_pktinfo =
        libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: *b"0123456789abcdef" }, ipi6_ifindex: 7 };

    fn encode_both(buffer: &mut Buffer) -> Encoder<'_> {
        let mut encoder = Encoder::new(buffer);
        encoder.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, PKTINFO).unwrap();
        encoder.push(libc::SOL_UDP, libc::UDP_SEGMENT, 1_200_u16).unwrap();
        encoder
    }

    #[test]
    fn layout_is_that_of_the_macros_of_libc() {
        let mut buffer = Buffer::EMPTY;
        let len = encode_both(&mut buffer).finish();
        // SAFETY: all zeros is a valid header. It refers to `buffer`, whose length it gives, and
        // the macros stay within it.
        unsafe {
            let pktinfo_bytes = size_of::<libc::in6_pktinfo>() as u32;
            assert_eq!(len, (libc::CMSG_SPACE(pktinfo_bytes) + libc::CMSG_SPACE(2)) as usize);
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_control = buffer.as_mut_ptr().cast();
            header.msg_controllen = len as _;
            let first = libc::CMSG_FIRSTHDR(&header);
            assert_eq!(((*first).cmsg_level, (*first).cmsg_type), (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO));
            assert_eq!((*first).cmsg_len, libc::CMSG_LEN(pktinfo_bytes) as usize);
            let info = libc::CMSG_DATA(first).cast::<libc::in6_pktinfo>().read_unaligned();
            assert_eq!((info.ipi6_addr.s6_addr, info.ipi6_ifindex), (*b"0123456789abcdef", 7));
            let second = libc::CMSG_NXTHDR(&header, first);
            assert_eq!(
                second.cast_const().cast::<u8>(),
                buffer.0.as_ptr().add(libc::CMSG_SPACE(pktinfo_bytes) as usize)
            );
            assert_eq!(((*second).cmsg_level, (*second).cmsg_type), (libc::SOL_UDP, libc::UDP_SEGMENT));
            assert_eq!((*second).cmsg_len, libc::CMSG_LEN(2) as usize);
            assert_eq!(libc::CMSG_DATA(second).cast::<u16>().read_unaligned(), 1_200);
            assert!(libc::CMSG_NXTHDR(&header, second).is_null());
        }
    }

    #[test]
    fn full_buffer_refuses_a_message_and_keeps_the_others() {
        let mut buffer = Buffer::EMPTY;
        let mut encoder = encode_both(&mut buffer);
        assert_eq!(encoder.push(libc::SOL_UDP, libc::UDP_SEGMENT, 1_u16), Err(BufferFull));
        let len = encoder.finish();
        assert_eq!((len, buffer.messages(len).count()), (CAPACITY_BYTES, 2));
    }

    #[test]
    fn decoded_messages_are_those_encoded() {
        let mut buffer = Buffer::EMPTY;
        let len = encode_both(&mut buffer).finish();
        let messages: Vec<_> = buffer.messages(len).collect();
        assert_eq!((messages[0].level, messages[0].kind), (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO));
        assert_eq!(messages[0].value::<libc::in6_pktinfo>().unwrap().ipi6_ifindex, 7);
        assert_eq!((messages[1].level, messages[1].kind), (libc::SOL_UDP, libc::UDP_SEGMENT));
        assert_eq!(messages[1].value::<u16>(), Some(1_200));
        assert!(messages[1].value::<libc::in_pktinfo>().is_none());
    }

    #[test]
    fn truncated_or_malformed_messages_end_the_iteration() {
        let mut buffer = Buffer::EMPTY;
        let len = encode_both(&mut buffer).finish();
        // The padding after the last value may be missing: 6 bytes after a `u16`.
        for shorter in 0..len - 6 {
            assert!(buffer.messages(shorter).count() < 2, "{shorter} bytes");
        }
        for cmsg_len in [0, VALUE_OFFSET - 1, CAPACITY_BYTES + 1, usize::MAX] {
            write(&mut buffer.0, libc::cmsghdr { cmsg_len: cmsg_len as _, cmsg_level: 0, cmsg_type: 0 });
            assert_eq!(buffer.messages(len).count(), 0, "length {cmsg_len}");
        }
    }
}
