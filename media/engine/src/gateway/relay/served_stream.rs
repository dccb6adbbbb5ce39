//! Sends a stream to one edge: first the frames that the hub holds, then each frame as it arrives.
//!
//! One task. The hub's consumer is the queue: an edge that is too slow resumes at a key frame that
//! is marked as following a gap. If there was no frame to send for a while, a heartbeat tells the
//! edge for how long the owner of the stream has been silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headwater_api::error::Chain;
use headwater_wire::relay::{EndReason, Message, Owner, write_frame};
use headwater_wire::targets::Targets;
use headwater_wire::{MediaKind, MediaTime, Track};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::relay::link::{Link, LinkError, LinkReader, LinkWriter};
use crate::gateway::relay::metrics::Metrics;
use crate::gateway::relay::owner_watch::OwnerWatch;
use crate::hub::{Consumer, Item, Next, Stream};

/// The edge, and what it subscribed to.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) hops: u8,
    pub(crate) history: bool,
    pub(crate) peer: SocketAddr,
    /// `None` if the edge knows no heartbeats, or the owner has no name.
    pub(crate) owner: Option<StreamOwner>,
    /// See `Timing::heartbeat_interval`.
    pub(crate) heartbeat_interval: Duration,
}

/// The owner of a served stream.
#[derive(Debug)]
pub(crate) enum StreamOwner {
    ThisNode(Owner),
    /// The stream is pulled from the owner, or from another edge.
    Pulled(Arc<OwnerWatch>),
}

impl StreamOwner {
    /// The heartbeat to send now; `None` if the source of the stream does not name the owner.
    fn heartbeat(&self) -> Option<Message> {
        let (owner, silence) = match self {
            Self::ThisNode(owner) => (owner.clone(), Duration::ZERO),
            Self::Pulled(watch) => {
                let silence = watch.silence();
                silence.owner(Instant::now()).map(|(owner, silence)| (owner.clone(), silence))?
            }
        };
        let silent_ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        Some(Message::Heartbeat { owner, silent_ms })
    }
}

/// The sending side of one stream to one edge.
#[derive(Debug)]
pub(crate) struct ServedStream {
    stream: Arc<Stream>,
    consumer: Consumer,
    subscriber: Subscriber,
    sent: SentState,
    frames: u64,
    lost_frames: u64,
}

/// What has been sent to the edge.
#[derive(Debug, Default)]
struct SentState {
    generation: Option<u64>,
    tracks: [Option<Arc<Track>>; 2],
    targets: Option<Targets>,
    b_frames: bool,
    notice_count: usize,
    /// Number of frames at the last tick.
    frames_at_tick: u64,
}

impl ServedStream {
    pub(crate) fn new(stream: Arc<Stream>, subscriber: Subscriber, history_segments: usize) -> Self {
        stream.keep_history(history_segments);
        let consumer = if subscriber.history { stream.consumer_with_history() } else { stream.consumer() };
        Self { stream, consumer, subscriber, sent: SentState::default(), frames: 0, lost_frames: 0 }
    }

    /// Sends until the stream ends, the edge ends the connection, or `drain` is cancelled.
    pub(crate) async fn run(mut self, link: Link, drain: &CancellationToken, metrics: &Metrics) {
        let opened_at = Instant::now();
        let name = self.stream.name().clone();
        log::info!(stream = name.as_str(), peer:% = self.subscriber.peer; "relay to an edge opened");
        let Link { mut reader, mut writer, .. } = link;
        let (ping_tx, mut ping_rx) = tokio::sync::watch::channel(None);
        let stream = Arc::clone(&self.stream);
        let reason = tokio::select! {
            end = read_requests(&stream, &mut reader, &ping_tx) => end,
            end = self.send_stream(&mut writer, &mut ping_rx, drain) => end.map(|end| match end {
                EndReason::StreamEnded => "stream ended",
                EndReason::Draining => "this node is draining",
                EndReason::Idle => "no viewers",
                EndReason::Moved => "another node owns the stream",
            }),
        };
        metrics.lost_frames.inc_by(self.lost_frames);
        let reason = reason.map_or_else(|e| Chain(&e).to_string(), str::to_owned);
        let elapsed_ms = u64::try_from(opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        log::info!(
            stream = name.as_str(), peer:% = self.subscriber.peer, frames = self.frames, lost_frames = self.lost_frames, elapsed_ms,
            reason = reason.as_str();
            "relay to an edge closed"
        );
    }

    async fn send_stream(
        &mut self,
        writer: &mut LinkWriter,
        ping_rx: &mut tokio::sync::watch::Receiver<Option<u64>>,
        drain: &CancellationToken,
    ) -> Result<EndReason, LinkError> {
        writer.queue_record(|out| self.write_header(self.stream.started_at_ms(), out));
        let mut next_item = self.consumer.try_next();
        while let Next::Item(item) = std::mem::replace(&mut next_item, Next::Empty) {
            writer.queue_record(|out| next_item = self.write_items(item, out));
            writer.flush(WRITE_TIMEOUT).await?;
        }
        writer.send(&Message::Live, WRITE_TIMEOUT).await?;
        let mut tick = tokio::time::interval(self.subscriber.heartbeat_interval);
        let end = loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => break EndReason::Draining,
                changed = ping_rx.changed() => {
                    let number = *ping_rx.borrow_and_update();
                    if let (Ok(()), Some(number)) = (changed, number) {
                        writer.queue_record(|out| Message::Pong(number).write(out));
                    }
                }
                item = self.consumer.next() => match item {
                    Some(item) => writer.queue_record(|out| {
                        self.write_items(item, out);
                    }),
                    None if drain.is_cancelled() => break EndReason::Draining,
                    None if self.stream.is_revoked() => break EndReason::Moved,
                    None => break EndReason::StreamEnded,
                },
                _ = tick.tick() => {
                    if self.has_updates() {
                        writer.queue_record(|out| self.write_updates(out));
                    }
                    let is_idle = std::mem::replace(&mut self.sent.frames_at_tick, self.frames) == self.frames;
                    if let Some(heartbeat) = self.heartbeat().filter(|_| is_idle) {
                        writer.queue_record(|out| heartbeat.write(out));
                    }
                }
            }
            writer.flush(WRITE_TIMEOUT).await?;
            self.consumer.skip_if_behind(MAX_BEHIND);
        };
        writer.send(&Message::End(end), CLOSE_TIMEOUT).await?;
        Ok(end)
    }

    fn write_header(&mut self, generation: u64, out: &mut BytesMut) {
        self.sent.generation = Some(generation);
        self.sent.targets = None;
        let protocol = self.stream.protocol().to_owned();
        Message::Accepted { generation, protocol, hops: self.subscriber.hops }.write(out);
        if let Some(heartbeat) = self.heartbeat() {
            heartbeat.write(out);
        }
        let tracks = self.stream.tracks().borrow().clone();
        self.sent.b_frames = tracks.b_frames;
        for track in [tracks.video, tracks.audio].into_iter().flatten() {
            self.write_track(&track, out);
        }
        self.write_updates(out);
    }

    fn heartbeat(&self) -> Option<Message> {
        self.subscriber.owner.as_ref().and_then(StreamOwner::heartbeat)
    }

    fn write_track(&mut self, track: &Arc<Track>, out: &mut BytesMut) {
        self.sent.tracks[track_index(track.kind())] = Some(Arc::clone(track));
        Message::Track { track: (**track).clone(), b_frames: self.sent.b_frames }.write(out);
    }

    /// Writes `first` and the items available after it, until [`RECORD_BYTES`] are written.
    fn write_items(&mut self, first: Item, out: &mut BytesMut) -> Next {
        let begin = out.len();
        let mut next = Next::Item(first);
        while let Next::Item(item) = next {
            let lost = self.consumer.take_lost().map_or(0, |lost| lost.frames);
            self.lost_frames += lost;
            self.frames += 1;
            if self.sent.generation != Some(item.generation) {
                self.write_header(item.generation, out);
            }
            let sent_track = self.sent.tracks[track_index(item.frame.kind())].as_ref();
            if !sent_track.is_some_and(|track| Arc::ptr_eq(track, &item.frame.track)) {
                self.write_track(&item.frame.track, out);
            }
            if self.sent.targets.replace(item.targets) != Some(item.targets) {
                Message::Targets(item.targets).write(out);
            }
            let after_gap = item.after_gap || (lost > 0 && self.frames > 1);
            write_frame(&item.frame, item.segment, item.time_shift, after_gap, out);
            if out.len() - begin > RECORD_BYTES {
                return self.consumer.try_next();
            }
            next = self.consumer.try_next();
        }
        next
    }

    fn has_updates(&self) -> bool {
        self.stream.notice_count() != self.sent.notice_count
            || self.stream.tracks().borrow().b_frames != self.sent.b_frames
    }

    fn write_updates(&mut self, out: &mut BytesMut) {
        let notices = self.stream.status().notices;
        for notice in notices.iter().skip(self.sent.notice_count) {
            Message::Notice { code: notice.code.clone(), message: notice.message.clone() }.write(out);
        }
        self.sent.notice_count = notices.len();
        let tracks = self.stream.tracks().borrow().clone();
        if tracks.b_frames != self.sent.b_frames {
            self.sent.b_frames = tracks.b_frames;
            if let Some(video) = &tracks.video {
                self.write_track(video, out);
            }
        }
    }
}

/// Handles messages from the edge until it ends the connection.
async fn read_requests(
    stream: &Stream,
    reader: &mut LinkReader,
    ping_tx: &tokio::sync::watch::Sender<Option<u64>>,
) -> Result<&'static str, LinkError> {
    loop {
        match reader.next_within(READ_TIMEOUT).await? {
            Message::KeyFrame => stream.request_key_frame(),
            Message::Ping(number) => {
                ping_tx.send_replace(Some(number));
            }
            Message::Pong(_) => {}
            Message::End(EndReason::Idle) => return Ok("no viewers"),
            Message::End(_) => return Ok("the edge ended the connection"),
            _ => return Err(LinkError::UnexpectedMessage),
        }
    }
}

const fn track_index(kind: MediaKind) -> usize {
    match kind {
        MediaKind::Video => 0,
        MediaKind::Audio => 1,
    }
}

/// Frames are put into one record up to this size; one frame may exceed it.
const RECORD_BYTES: usize = 64 << 10;
/// An edge that is further behind than this resumes at the last key frame.
const MAX_BEHIND: MediaTime = MediaTime::from_ms(3_000);
/// An edge pings every second.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is closed if a write makes no progress for this duration.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
