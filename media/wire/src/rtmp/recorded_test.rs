//! Processes recorded publishers (tests/data/rtmp) from the first byte to the last frame.

use bytes::Bytes;

use super::handshake::Progress;
use super::ingest::IngestOutput;
use super::session::Event;
use super::{ChunkReader, Handshake, Ingest, Session};
use crate::{Codec, Frame};

const FFMPEG: &[u8] = include_bytes!("../../../../tests/data/rtmp/ffmpeg-publish.bin");
const GSTREAMER: &[u8] = include_bytes!("../../../../tests/data/rtmp/gst-publish.bin");

#[derive(Default)]
struct Server {
    handshake: Option<Handshake>,
    reader: ChunkReader,
    session: Session,
    ingest: Ingest,
    names: Vec<String>,
    tracks: Vec<Codec>,
    frames: Vec<Frame>,
    ended: bool,
}

impl Server {
    fn new() -> Self {
        Self { handshake: Some(Handshake::default()), ..Self::default() }
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
        let rest: Bytes = match &mut self.handshake {
            None => Bytes::copy_from_slice(bytes),
            Some(handshake) => match handshake.on_bytes(bytes, &mut Vec::new())? {
                Progress::InProgress => return Ok(()),
                Progress::Done(rest) => {
                    self.handshake = None;
                    rest.into()
                }
            },
        };
        let mut input = &rest[..];
        self.session.on_received(input.len());
        while let Some(message) = self.reader.next(&mut input)? {
            match self.session.on_message(message)? {
                Some(Event::Connect { app, .. }) => {
                    self.names.push(app);
                    self.session.accept_connect();
                }
                Some(Event::Publish { stream_id, .. } | Event::Play { stream_id, .. }) => {
                    self.names.push(stream_id);
                    self.session.accept();
                    self.reader.expect_media();
                }
                Some(Event::Media(message)) => match self.ingest.on_message(message) {
                    Ok(Some(IngestOutput::Track(track))) => self.tracks.push(track.codec),
                    Ok(Some(IngestOutput::Frame(frame))) => self.frames.push(frame),
                    Ok(None) | Err(_) => {}
                },
                Some(Event::Ended) => self.ended = true,
                Some(Event::Metadata(_)) | None => {}
            }
            self.session.take_replies();
        }
        Ok(())
    }
}

fn serve(bytes: &[u8], piece: usize) -> Server {
    let mut server = Server::new();
    for bytes in bytes.chunks(piece) {
        if server.on_bytes(bytes).is_err() {
            break;
        }
    }
    server
}

fn count(server: &Server, codec: Codec) -> usize {
    server.frames.iter().filter(|f| f.track.codec == codec).count()
}

#[test]
fn recorded_ffmpeg_publisher_is_ingested_for_every_read_size() {
    for piece in [1, 1_000, FFMPEG.len()] {
        let server = serve(FFMPEG, piece);
        assert_eq!(server.names, ["live", "recorded"]);
        assert_eq!(server.tracks, [Codec::H264, Codec::Aac]);
        assert_eq!((count(&server, Codec::H264), count(&server, Codec::Aac)), (15, 45));
        assert!(server.ended);
        let video: Vec<_> = server.frames.iter().filter(|f| f.track.codec == Codec::H264).collect();
        assert!(video[0].key && video[0].track.video.unwrap().width == 160);
        assert!(video.iter().any(|f| f.pts != f.dts), "it has B-frames");
    }
}

#[test]
fn recorded_gstreamer_publisher_is_ingested() {
    let server = serve(GSTREAMER, 500);
    assert_eq!(server.names, ["live", "gst"]);
    assert_eq!((count(&server, Codec::H264), count(&server, Codec::Aac)), (15, 43));
}

#[test]
fn no_flipped_bit_of_a_recording_panics() {
    for recording in [FFMPEG, GSTREAMER] {
        // The commands and the media, after the 3,073 bytes of the handshake.
        for at in 3_070..recording.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = recording.to_vec();
                bytes[at] ^= flip;
                serve(&bytes, bytes.len());
            }
        }
    }
}
