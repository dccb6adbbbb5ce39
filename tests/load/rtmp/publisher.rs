//! Publishes the source in real time, in a loop, with marks in its video frames.
//!
//! One task per publisher; one write per video or AAC frame, as encoders do. The tasks run on their
//! own thread, so that viewers in the same process do not delay them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{self, CHUNK_BYTES, Purpose, STREAM_ID, Session};
use crate::mark::{Mark, NAL_BYTES};
use crate::source::{FlvTag, PASS_MS, Source};

/// Publishers of one case. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Publishers {
    stop: CancellationToken,
    failed_rx: mpsc::Receiver<anyhow::Error>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Publishers {
    /// Starts publishing `app/key` for each of `keys`, with a mark in every `marks_every`th video
    /// frame. Returns once the server has accepted all of them.
    ///
    /// # Errors
    /// If the server refused one.
    pub(crate) async fn start(
        server: SocketAddr,
        app: &str,
        keys: Vec<String>,
        source: Arc<Source>,
        marks_every: u32,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let (failed_tx, failed_rx) = mpsc::channel(keys.len().max(1));
        let (accepted_tx, accepted_rx) = oneshot::channel();
        let (app, stop_token) = (app.to_owned(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("publishers".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for key in keys {
                    let session = match client::open(server, &app, &key, Purpose::Publish).await {
                        Ok(session) => session,
                        Err(e) => {
                            let _ = accepted_tx.send(Err(e.context(format!("could not publish {app}/{key}"))));
                            return;
                        }
                    };
                    let (source, failed_tx) = (Arc::clone(&source), failed_tx.clone());
                    tasks.spawn(async move {
                        if let Err(e) = send(session, &source, marks_every).await {
                            let _ = failed_tx.try_send(e.context(format!("publisher {key} ended")));
                        }
                    });
                }
                let _ = accepted_tx.send(Ok(()));
                stop_token.cancelled().await;
            });
        })?;
        accepted_rx.await.context("the publishers' thread ended")??;
        Ok(Self { stop, failed_rx, thread: Some(thread) })
    }

    /// Reports a publisher that has ended.
    ///
    /// # Errors
    /// If a publisher has ended, with its reason.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.failed_rx.try_recv().map_or(Ok(()), Err)
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends pass after pass until the connection fails.
async fn send(mut session: Session, source: &Source, marks_every: u32) -> Result<()> {
    let mut chunks = Chunks::default();
    for header in &source.headers {
        chunks.write(header, 0, None);
    }
    session.socket.write_all(&chunks.out).await?;
    let start = Instant::now();
    let mut frame = 0_u32;
    for pass in 0.. {
        for tag in &source.tags {
            let at_ms = pass * PASS_MS + tag.at_ms;
            let due = start + Duration::from_millis(u64::from(at_ms));
            while Instant::now() < due {
                tokio::select! {
                    () = sleep_until(due) => break,
                    readable = session.socket.readable() => {
                        readable?;
                        answer_pings(&mut session).await?;
                    }
                }
            }
            chunks.out.clear();
            let mark = (tag.video && frame.is_multiple_of(marks_every)).then(|| Mark::now(frame));
            frame += u32::from(tag.video);
            chunks.write(tag, at_ms, mark);
            session.socket.write_all(&chunks.out).await.context("the server closed the connection")?;
        }
    }
    Ok(())
}

/// Reads messages of the server and responds to its pings.
async fn answer_pings(session: &mut Session) -> Result<()> {
    let mut buffer = [0u8; 4096];
    let n = match session.socket.try_read(&mut buffer) {
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    ensure!(n > 0, "the server closed the connection");
    let mut response = None;
    session.skimmer.feed(&buffer[..n], |m| {
        response = client::pong(&m).or(response);
        Ok(())
    })?;
    match response {
        Some(pong) => session.send(2, 4, 0, &pong).await,
        None => Ok(()),
    }
}

/// Writes messages as chunks (RTMP 1.0 §5.3.1): a full header first, then timestamp deltas.
#[derive(Debug, Default)]
struct Chunks {
    out: Vec<u8>,
    /// Last timestamp of audio and of video, `None` before the first.
    last_ms: [Option<u32>; 2],
}

impl Chunks {
    fn write(&mut self, tag: &FlvTag, at_ms: u32, mark: Option<Mark>) {
        let (chunk_stream, kind) = if tag.video { (6u8, 9u8) } else { (4, 8) };
        let length = tag.body.len() + if mark.is_some() { 4 + NAL_BYTES } else { 0 };
        let length = &(length as u32).to_be_bytes()[1..];
        let last = self.last_ms[usize::from(tag.video)].replace(at_ms);
        match last {
            None => {
                self.out.push(chunk_stream);
                self.out.extend_from_slice(&at_ms.to_be_bytes()[1..]);
                self.out.extend_from_slice(length);
                self.out.extend_from_slice(&[kind, STREAM_ID, 0, 0, 0]);
            }
            Some(last) => {
                self.out.push(0x40 | chunk_stream);
                self.out.extend_from_slice(&(at_ms - last).to_be_bytes()[1..]);
                self.out.extend_from_slice(length);
                self.out.push(kind);
            }
        }
        let mut head = Vec::new();
        let mut body: &[u8] = &tag.body;
        if let Some(mark) = mark {
            head.extend_from_slice(&body[..VIDEO_HEADER_BYTES]);
            mark.write(&mut head);
            body = &body[VIDEO_HEADER_BYTES..];
        }
        let mut room = CHUNK_BYTES;
        for mut part in [&head[..], body] {
            while !part.is_empty() {
                if room == 0 {
                    self.out.push(0xc0 | chunk_stream);
                    room = CHUNK_BYTES;
                }
                let n = room.min(part.len());
                self.out.extend_from_slice(&part[..n]);
                part = &part[n..];
                room -= n;
            }
        }
    }
}

/// FLV video header of an AVC frame: frame type and codec, packet type, composition time.
const VIDEO_HEADER_BYTES: usize = 5;
