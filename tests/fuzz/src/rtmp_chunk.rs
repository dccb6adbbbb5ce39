//! The chunk reader: the messages do not depend on the read sizes.

use headwater_wire::rtmp::{ChunkReader, Message};

fn read(bytes: &[u8], piece: usize) -> Vec<Message> {
    let mut reader = ChunkReader::default();
    let mut out = Vec::new();
    for mut input in bytes.chunks(piece) {
        loop {
            match reader.next(&mut input) {
                Ok(Some(message)) => out.push(message),
                Ok(None) => break,
                Err(_) => return out,
            }
        }
    }
    out
}

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    let pieces = read(bytes, usize::from(piece).max(1));
    assert_eq!(whole, pieces);
}
