//! Splits an RTMP chunk stream into messages while keeping only the start of
//! each (RTMP 1.0 §5.3.1).
//!
//! Payload bytes are skipped, not copied, so that a viewer costs little compared with
//! the server under test.

use anyhow::{Result, ensure};

/// A complete message, of which only the start is kept.
pub(crate) struct Message<'a> {
    /// Message type id (RTMP 1.0 §5.4, §7.1).
    pub(crate) kind: u8,
    /// The first [`HEAD_BYTES`] of the payload at most.
    pub(crate) head: &'a [u8],
}

/// Bytes kept of each message: enough for a mark after an SPS and a PPS, and
/// for any command response.
pub(crate) const HEAD_BYTES: usize = 512;

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Skimmer {
    chunk_bytes: usize,
    streams: Vec<Stream>,
    header: Vec<u8>,
    /// Index of the chunk stream whose payload is being read, and the remaining bytes of the chunk.
    payload: Option<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Stream {
    id: u32,
    kind: u8,
    length: usize,
    received: usize,
    extended: bool,
    head: Vec<u8>,
}

impl Default for Skimmer {
    fn default() -> Self {
        Self { chunk_bytes: 128, streams: Vec::new(), header: Vec::with_capacity(18), payload: None }
    }
}

impl Skimmer {
    /// Parses received bytes and calls `on` for each message that they complete.
    ///
    /// # Errors
    /// If the chunk format is violated, or `on` fails.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Message<'_>) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let Some((index, left)) = self.payload else {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                self.on_header_byte()?;
                continue;
            };
            let n = left.min(bytes.len());
            let stream = &mut self.streams[index];
            let keep = n.min(HEAD_BYTES.saturating_sub(stream.head.len()));
            stream.head.extend_from_slice(&bytes[..keep]);
            stream.received += n;
            bytes = &bytes[n..];
            self.payload = (left > n).then_some((index, left - n));
            if stream.received == stream.length {
                if stream.kind == 1 && stream.head.len() >= 4 {
                    self.chunk_bytes = (be(&stream.head[..4]) & 0x7fff_ffff) as usize;
                }
                on(Message { kind: stream.kind, head: &stream.head })?;
                stream.received = 0;
                stream.head.clear();
            }
        }
        Ok(())
    }

    /// Called after each byte of a chunk header; starts the payload once the header is complete.
    fn on_header_byte(&mut self) -> Result<()> {
        let first = self.header[0];
        let basic = match first & 0x3f {
            0 => 2,
            1 => 3,
            _ => 1,
        };
        if self.header.len() < basic {
            return Ok(());
        }
        let id = match basic {
            1 => u32::from(first & 0x3f),
            2 => 64 + u32::from(self.header[1]),
            _ => 64 + u32::from(self.header[1]) + 256 * u32::from(self.header[2]),
        };
        let message_bytes = [11, 7, 3, 0][usize::from(first >> 6)];
        if self.header.len() < basic + message_bytes {
            return Ok(());
        }
        let index = self.streams.iter().position(|s| s.id == id).unwrap_or_else(|| {
            self.streams.push(Stream { id, ..Stream::default() });
            self.streams.len() - 1
        });
        ensure!(index < 64, "too many chunk streams");
        let stream = &mut self.streams[index];
        let fields = &self.header[basic..basic + message_bytes];
        let extended = if fields.is_empty() { stream.extended } else { fields[..3] == [0xff; 3] };
        if self.header.len() < basic + message_bytes + if extended { 4 } else { 0 } {
            return Ok(());
        }
        stream.extended = extended;
        if fields.len() >= 7 {
            stream.length = be(&fields[3..6]) as usize;
            stream.kind = fields[6];
        }
        let left = (stream.length - stream.received).min(self.chunk_bytes);
        self.header.clear();
        self.payload = (left > 0).then_some((index, left));
        Ok(())
    }
}

fn be(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_messages_are_separated_for_every_read_size() {
        let mut bytes = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 4]; // chunks of four bytes from now on
        bytes.extend_from_slice(&[6, 0, 0, 0, 0, 0, 6, 9, 1, 0, 0, 0, 1, 2, 3, 4]);
        bytes.extend_from_slice(&[4, 0, 0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 7, 8]);
        bytes.extend_from_slice(&[0xc6, 5, 6]);
        for step in 1..bytes.len() {
            let mut skimmer = Skimmer::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(step) {
                skimmer
                    .feed(part, |m| {
                        seen.push((m.kind, m.head.to_vec()));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(seen[1..], [(8, vec![7, 8]), (9, vec![1, 2, 3, 4, 5, 6])]);
        }
    }
}
