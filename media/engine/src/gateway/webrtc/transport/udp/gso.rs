//! Groups outgoing datagrams into messages that the kernel splits again (GSO, `UDP_SEGMENT`).
//!
//! ```text
//!   send buffer  | 1200 | 1200 | 1200 | 300 | 90 | 200 | 200 |
//!   messages     |    first, segments of 1200   | 2. |   third   |
//! ```
//!
//! A plain value: datagrams go in, messages for one flush come out. Must not know the socket.

use crate::gateway::webrtc::transport::udp::address_pair::AddressPair;
use crate::gateway::webrtc::transport::udp::mmsg::{SEND_MESSAGES, Transmit};

/// Size of the send buffer: one burst for one viewer. A larger buffer would evict the keys of the
/// next viewer from the core's cache.
const SEND_BYTES: usize = 64 << 10;
/// Maximum number of segments per message; the kernel allows 64 (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: u16 = 60;
/// Maximum size of a message; UDP allows 65,507 bytes.
const MAX_MESSAGE_BYTES: usize = 64_000;

/// The datagrams of the next flush.
pub(super) struct SendQueue {
    buffer: Vec<u8>,
    used_bytes: usize,
    messages: Vec<Message>,
}

/// Consecutive datagrams with the same addresses. All but the last have equal size, and the last is
/// not larger.
pub(super) struct Message {
    pair: AddressPair,
    offset: usize,
    pub(super) len: usize,
    /// Size of every datagram except the last.
    segment_bytes: usize,
    pub(super) segments: u16,
    /// True after a shorter datagram was added, which must be the last.
    closed: bool,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; SEND_BYTES], used_bytes: 0, messages: Vec::with_capacity(SEND_MESSAGES) }
    }

    /// Reserves `len` bytes for a datagram, which joins the last message if possible. Returns its
    /// offset for [`SendQueue::datagram_mut`], or `None` if the queue must be flushed first.
    #[inline]
    pub(super) fn reserve(&mut self, pair: &AddressPair, len: usize) -> Option<usize> {
        let offset = self.used_bytes;
        if offset + len > SEND_BYTES {
            return None;
        }
        let appended = self.messages.last_mut().is_some_and(|last| last.append(pair, len));
        if !appended {
            if self.messages.len() == SEND_MESSAGES {
                return None;
            }
            self.messages.push(Message::new(pair, offset, len));
        }
        self.used_bytes = offset + len;
        Some(offset)
    }

    /// Returns the bytes of a datagram that was reserved with this offset and length.
    #[inline]
    pub(super) fn datagram_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        &mut self.buffer[offset..offset + len]
    }

    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Returns the messages from `first` on, for one or more system calls.
    pub(super) fn transmits(&self, first: usize) -> impl Iterator<Item = Transmit<'_>> {
        self.messages[first..].iter().map(|message| Transmit {
            pair: &message.pair,
            contents: &self.buffer[message.offset..message.offset + message.len],
            segment_bytes: (message.segments > 1).then_some(message.segment_bytes as u16),
        })
    }

    /// Removes the first `sent` messages and splits each of the others into one message per
    /// datagram, for a device without segmentation offload.
    pub(super) fn split_messages(&mut self, sent: usize) {
        let whole = std::mem::take(&mut self.messages);
        for message in &whole[sent..] {
            let end = message.offset + message.len;
            let mut offset = message.offset;
            while offset < end {
                let len = message.segment_bytes.min(end - offset);
                self.messages.push(Message { closed: true, ..Message::new(&message.pair, offset, len) });
                offset += len;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.used_bytes = 0;
    }
}

impl Message {
    fn new(pair: &AddressPair, offset: usize, len: usize) -> Self {
        Self { pair: *pair, offset, len, segment_bytes: len, segments: 1, closed: false }
    }

    /// Appends the next datagram in the buffer. Returns false if it needs a message of its own.
    #[inline]
    fn append(&mut self, pair: &AddressPair, len: usize) -> bool {
        let fits = !self.closed
            && len <= self.segment_bytes
            && self.segments < MAX_SEGMENTS
            && self.len + len <= MAX_MESSAGE_BYTES
            && self.pair == *pair;
        if fits {
            self.len += len;
            self.segments += 1;
            self.closed = len < self.segment_bytes;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> AddressPair {
        AddressPair::to("127.0.0.1:9".parse().unwrap())
    }

    #[test]
    fn datagrams_are_sent_separately_without_segmentation_offload() {
        let mut queue = SendQueue::new();
        for size in [500, 500, 200, 500] {
            queue.reserve(&pair(), size).unwrap();
        }
        let shape = |q: &SendQueue| q.messages.iter().map(|m| (m.offset, m.len, m.segments)).collect::<Vec<_>>();
        assert_eq!(shape(&queue), [(0, 1_200, 3), (1_200, 500, 1)]);
        queue.split_messages(0);
        assert_eq!(shape(&queue), [(0, 500, 1), (500, 500, 1), (1_000, 200, 1), (1_200, 500, 1)]);
    }

    #[test]
    fn messages_sent_before_offload_failed_are_not_sent_again() {
        let mut queue = SendQueue::new();
        for size in [100, 500, 500] {
            queue.reserve(&pair(), size).unwrap();
        }
        queue.split_messages(1);
        let contents: Vec<_> = queue.transmits(0).map(|t| (t.contents.len(), t.segment_bytes)).collect();
        assert_eq!(contents, [(500, None), (500, None)]);
    }

    #[test]
    fn full_queue_must_be_flushed_before_the_next_datagram() {
        let mut queue = SendQueue::new();
        // Each datagram is larger than the one before it, so that each needs its own message.
        for size in 1..=SEND_MESSAGES {
            assert!(queue.reserve(&pair(), size).is_some());
        }
        assert_eq!(queue.reserve(&pair(), SEND_MESSAGES + 1), None);
        queue.clear();
        let mut bytes = 0;
        while queue.reserve(&pair(), 2_000).is_some() {
            bytes += 2_000;
        }
        assert!(bytes <= SEND_BYTES && bytes + 2_000 > SEND_BYTES);
    }
}
