//! The chunk stream of one peer through a session that accepts every request.

use headwater_wire::rtmp::session::Event;
use headwater_wire::rtmp::{ChunkReader, Ingest, Session};

/// Runs the target on one input. Panics if the input is a finding.
pub fn run(data: &[u8]) {
    let (mut reader, mut session, mut ingest) = (ChunkReader::default(), Session::default(), Ingest::default());
    session.on_received(data.len());
    let mut input = data;
    while let Ok(Some(message)) = reader.next(&mut input) {
        match session.on_message(message) {
            Ok(Some(Event::Connect { .. })) => session.accept_connect(),
            Ok(Some(Event::Publish { .. })) => {
                session.accept();
                reader.expect_media();
            }
            Ok(Some(Event::Play { .. })) => session.accept(),
            Ok(Some(Event::Ended)) => reader.expect_commands(),
            Ok(Some(Event::Media(message))) => {
                let _ = ingest.on_message(message);
            }
            Ok(_) => {}
            Err(_) => break,
        }
        let _ = session.take_replies();
    }
    session.close("fuzzed");
}
