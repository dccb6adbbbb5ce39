//! Turns the messages of an origin into a stream of this node's hub. Does not wait.
//!
//! ```text
//!   Accepted --> backlog: frames are collected --Live--> live: frames go to the hub
//!      ^                                                   |
//!      +---- another connection for the same stream <------+ connection lost
//! ```
//!
//! After a reconnection to the same generation of the stream, frames that were received already are
//! skipped. The timestamps of another generation are shifted to continue where the last one ended.

use std::sync::Arc;

use headwater_api::StreamName;
use headwater_wire::relay::{EndReason, MediaFrame, Message, Refusal};
use headwater_wire::targets::Targets;
use headwater_wire::{Frame, MediaKind, MediaTime, Track};

use crate::gateway::relay::link::LinkError;
use crate::hub::{Producer, PublishError, RelayedStreams};

/// One pulled stream, across all its connections.
#[derive(Debug)]
pub(crate) struct Ingest {
    relayed: RelayedStreams,
    name: StreamName,
    producer: Option<Producer>,
    tracks: [Option<Arc<Track>>; 2],
    b_frames: bool,
    generation: Option<u64>,
    /// The constants of `generation`, as of the newest frame. `None` if the origin does not send
    /// them.
    targets: Option<Targets>,
    /// DTS of the newest frame by kind, on the timeline of `generation`.
    newest: [Option<MediaTime>; 2],
    /// Another generation has been announced, and no frame of it has arrived.
    new_generation: bool,
    /// Set until the connection is live.
    backlog: Option<Backlog>,
}

#[derive(Debug, Default)]
struct Backlog {
    frames: Vec<BacklogFrame>,
    bytes: usize,
    notices: Vec<(String, String)>,
}

#[derive(Debug)]
struct BacklogFrame {
    track: Arc<Track>,
    targets: Option<Targets>,
    media: MediaFrame,
}

/// What the task must do after a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the next message.
    Continue,
    /// The origin accepted the subscription; the publisher's node is `hops` connections away.
    Accepted { hops: u8 },
    /// The backlog is complete: the stream is live in the hub.
    Live,
    /// The origin refused the subscription.
    Refused(Refusal),
    /// The origin ended the connection.
    End(EndReason),
}

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the hub refused the stream")]
    Hub(#[from] PublishError),
}

impl Ingest {
    pub(crate) fn new(relayed: RelayedStreams, name: StreamName) -> Self {
        Self {
            relayed,
            name,
            producer: None,
            tracks: [None, None],
            b_frames: false,
            generation: None,
            targets: None,
            newest: [None; 2],
            new_generation: false,
            backlog: None,
        }
    }

    /// Set once the stream has been live.
    pub(crate) fn producer(&self) -> Option<&Producer> {
        self.producer.as_ref()
    }

    /// Starts the backlog of a new connection.
    pub(crate) fn on_connect(&mut self) {
        self.backlog = Some(Backlog::default());
    }

    /// Handles a message from the origin.
    pub(crate) fn on_message(&mut self, message: Message) -> Result<Step, IngestError> {
        match message {
            Message::Accepted { generation, hops, .. } => {
                if self.generation != Some(generation) {
                    self.new_generation = self.generation.is_some();
                    self.generation = Some(generation);
                    self.targets = None;
                    self.newest = [None; 2];
                }
                return Ok(Step::Accepted { hops });
            }
            Message::Refused(reason) => return Ok(Step::Refused(reason)),
            Message::Track { track, b_frames } => self.on_track(track, b_frames),
            Message::Targets(targets) => self.targets = Some(targets),
            Message::Frame(media) => self.on_media(media)?,
            Message::Live => {
                self.on_live()?;
                return Ok(Step::Live);
            }
            Message::Notice { code, message } => match (&self.producer, &mut self.backlog) {
                (Some(producer), _) => producer.stream().add_notice(&code, &message),
                (None, Some(backlog)) if backlog.notices.len() < MAX_NOTICES => {
                    backlog.notices.push((code, message));
                }
                (None, _) => {}
            },
            Message::End(reason) => return Ok(Step::End(reason)),
            Message::Pong(_) | Message::Heartbeat { .. } => {}
            Message::Subscribe { .. }
            | Message::KeyFrame
            | Message::Ping(_)
            | Message::AskWitness { .. }
            | Message::Testimony(_)
            | Message::Moved { .. } => {
                return Err(LinkError::UnexpectedMessage.into());
            }
        }
        Ok(Step::Continue)
    }

    /// A new `Arc` signals a changed configuration, so the `Arc` of an equal track is reused.
    fn on_track(&mut self, track: Track, b_frames: bool) {
        let slot = &mut self.tracks[track_index(track.kind())];
        let track = match slot.take().filter(|current| **current == track) {
            Some(current) => current,
            None => Arc::new(track),
        };
        *slot = Some(Arc::clone(&track));
        if let Some(producer) = &mut self.producer {
            announce(producer, &track, b_frames);
        }
        self.b_frames = b_frames || (self.b_frames && track.kind() == MediaKind::Audio);
    }

    fn on_media(&mut self, media: MediaFrame) -> Result<(), LinkError> {
        let track = self.tracks[track_index(media.kind)].clone().ok_or(LinkError::UnexpectedMessage)?;
        if self.generation.is_none() {
            return Err(LinkError::UnexpectedMessage);
        }
        match &mut self.backlog {
            Some(backlog) => {
                backlog.bytes += media.payload.len() + 64;
                if backlog.bytes > MAX_BACKLOG_BYTES {
                    return Err(LinkError::BacklogTooLarge(MAX_BACKLOG_BYTES));
                }
                backlog.frames.push(BacklogFrame { track, targets: self.targets, media });
            }
            None => {
                if std::mem::take(&mut self.new_generation)
                    && let (Some(producer), Some(generation)) = (&mut self.producer, self.generation)
                {
                    producer.start_generation(generation, media.dts, media.dts);
                }
                self.send(track, self.targets, media, false);
            }
        }
        Ok(())
    }

    fn on_live(&mut self) -> Result<(), IngestError> {
        let (Some(backlog), Some(generation)) = (self.backlog.take(), self.generation) else {
            return Err(LinkError::UnexpectedMessage.into());
        };
        let Backlog { frames, notices, .. } = backlog;
        let resumes = self.producer.is_some() && !self.new_generation;
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(self.relayed.publish(&self.name, generation)?),
        };
        for track in self.tracks.iter().flatten() {
            announce(producer, track, self.b_frames);
        }
        notices.iter().for_each(|(code, message)| producer.stream().add_notice(code, message));
        // Without a frame yet, the first one that arrives starts the generation.
        if self.new_generation
            && let (Some(first), Some(newest)) = (frames.first(), frames.iter().map(|f| f.media.dts).max())
        {
            producer.start_generation(generation, first.media.dts, newest);
            self.new_generation = false;
        }
        let seen = self.newest;
        let first = frames.first().map(|f| &f.media);
        let overlaps = first.is_some_and(|m| seen[track_index(m.kind)].is_some_and(|newest| m.dts <= newest));
        let mut after_gap = resumes && !overlaps;
        for BacklogFrame { track, targets, media } in frames {
            if seen[track_index(media.kind)].is_some_and(|newest| media.dts <= newest) {
                continue;
            }
            self.send(track, targets, media, std::mem::take(&mut after_gap));
        }
        Ok(())
    }

    fn send(&mut self, track: Arc<Track>, targets: Option<Targets>, media: MediaFrame, after_gap: bool) {
        let newest = &mut self.newest[track_index(media.kind)];
        *newest = (*newest).max(Some(media.dts));
        let Some(producer) = &mut self.producer else { return };
        let MediaFrame { key, dts, pts, segment, payload, .. } = media;
        let frame = Frame { track, dts, pts, key, payload };
        producer.send_relayed(frame, segment, targets, after_gap || media.after_gap);
    }
}

fn announce(producer: &mut Producer, track: &Arc<Track>, b_frames: bool) {
    if b_frames && track.kind() == MediaKind::Video {
        producer.announce_with_b_frames(track);
    } else {
        producer.announce(track);
    }
}

const fn track_index(kind: MediaKind) -> usize {
    match kind {
        MediaKind::Video => 0,
        MediaKind::Audio => 1,
    }
}

/// A stream has one notice per code, and there are few codes.
const MAX_NOTICES: usize = 32;
/// Twice the depth of a stream in the hub.
const MAX_BACKLOG_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_wire::segment::Segment;
    use headwater_wire::{Codec, VideoTrack};

    use super::*;
    use crate::hub::{Hub, Limits};

    /// A connection whose origin has accepted the subscription.
    fn accepted(hub: &Hub) -> Ingest {
        let mut ingest = Ingest::new(hub.relayed().clone(), StreamName::new("live", "a").unwrap());
        ingest.on_connect();
        let accepted = Message::Accepted { generation: 1_800_000_000_000, protocol: "rtmp".to_owned(), hops: 1 };
        assert_eq!(ingest.on_message(accepted).unwrap(), Step::Accepted { hops: 1 });
        let track = Track {
            codec: Codec::H264,
            config: Bytes::new(),
            codec_string: None,
            video: Some(VideoTrack::default()),
            audio: None,
        };
        ingest.on_message(Message::Track { track, b_frames: false }).unwrap();
        ingest
    }

    #[test]
    fn backlog_of_an_origin_that_never_becomes_live_is_limited() {
        let hub = Hub::new(Limits::default());
        let mut ingest = accepted(&hub);
        let payload = Bytes::from(vec![0; 16 << 20]);
        let accepted = (0..10).take_while(|_| {
            let segment = Segment { number: 1, start: MediaTime::ZERO };
            let (dts, payload) = (MediaTime::ZERO, payload.clone());
            let (kind, key, after_gap) = (MediaKind::Video, true, false);
            let frame = MediaFrame { kind, key, dts, pts: dts, segment, after_gap, payload };
            ingest.on_message(Message::Frame(frame)).is_ok()
        });
        assert_eq!(accepted.count(), 3);
    }

    #[test]
    fn number_of_notices_before_the_stream_is_live_is_limited() {
        let hub = Hub::new(Limits::default());
        let mut ingest = accepted(&hub);
        for n in 0..2 * MAX_NOTICES {
            ingest.on_message(Message::Notice { code: n.to_string(), message: String::new() }).unwrap();
        }
        assert_eq!(ingest.on_message(Message::Live).unwrap(), Step::Live);
        assert_eq!(ingest.producer().unwrap().stream().notice_count(), MAX_NOTICES);
    }
}
