//! Plays a stream over RTMP and counts bytes, frames and gaps, and measures the
//! latency of each frame.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::client::{self, Purpose};
use super::skim::Message;
use crate::mark::Mark;
use crate::tally::Tally;

/// Plays `app/key` until it is aborted or the server ends it.
///
/// A player has joined once a complete key frame is received. The time starts
/// before the TCP connection.
///
/// # Errors
/// If the server refused or ended the session.
pub(crate) async fn play(server: SocketAddr, app: &str, key: &str, tally: Arc<Tally>) -> Result<()> {
    let started = Instant::now();
    let mut session = client::open(server, app, key, Purpose::Play).await?;
    let mut counter = FrameCounter { tally, started, joined: false, next_frame: None };
    let (mut total, mut acknowledged) = (0usize, 0usize);
    loop {
        session.socket.readable().await?;
        let mut pong = None;
        let n = BUFFER.with_borrow_mut(|buffer| -> Result<Option<usize>> {
            let n = match session.socket.try_read(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            session.skimmer.feed(&buffer[..n], |m| {
                pong = client::pong(&m).or(pong);
                counter.on_message(&m);
                Ok(())
            })?;
            Ok(Some(n))
        })?;
        let Some(n) = n else { continue };
        ensure!(n > 0, "the server closed the connection");
        counter.tally.add_bytes(n);
        total += n;
        if total - acknowledged >= ACKNOWLEDGE_BYTES {
            acknowledged = total;
            session.send(2, 3, 0, &(total as u32).to_be_bytes()).await?;
        }
        if let Some(pong) = pong {
            session.send(2, 4, 0, &pong).await?;
        }
    }
}

struct FrameCounter {
    tally: Arc<Tally>,
    started: Instant,
    joined: bool,
    next_frame: Option<u32>,
}

impl FrameCounter {
    fn on_message(&mut self, message: &Message<'_>) {
        self.tally.add_packets(1);
        let (9, [header, 1, ..]) = (message.kind, message.head) else { return };
        self.tally.add_frame();
        if !self.joined && header >> 4 == 1 {
            self.joined = true;
            self.tally.record_join_us(self.started.elapsed().as_micros() as u32);
        }
        let Some((mark, _)) = Mark::find(message.head) else { return };
        self.tally.record_latency_us(mark.age_us());
        self.tally.add_lost(self.next_frame.map_or(0, |next| u64::from(mark.frame.saturating_sub(next))));
        self.next_frame = Some(mark.frame + 1);
    }
}

thread_local! {
    /// Shared by all players of a thread; its content is valid during one read only.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 * 1024]);
}

/// Half of the window size that servers commonly announce (RTMP 1.0 §5.4.3).
const ACKNOWLEDGE_BYTES: usize = 1_250_000;
