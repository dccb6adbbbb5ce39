//! WHEP signalling (draft-ietf-wish-whep-02 §4): answers SDP offers, creates sessions on the
//! workers and keeps a directory of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::status::Notice;
use headwater_wire::codec::h264::DecoderConfig;
use headwater_wire::webrtc::{self, Credentials, Fingerprint, Media, Offer, Section, Sending};
use headwater_wire::{Codec, MediaKind};

use crate::gateway::webrtc::metrics::Metrics;
use crate::gateway::webrtc::play::mailbox::{Command, Mailbox};
use crate::gateway::webrtc::play::packetizer::Feed;
use crate::gateway::webrtc::play::session::{CNAME, NewSession};
use crate::gateway::webrtc::transport::liveness::Pulse;
use crate::hub::{Hub, PerStream, Stream, Tracks, ViewerKind};
use crate::runtime::placement::Fill;

/// How long an offer waits for the first track of a stream that has just been published.
const FIRST_TRACK: Duration = Duration::from_secs(2);
/// How long an offer for audio and video then waits for the second track.
const SECOND_TRACK: Duration = Duration::from_millis(300);

/// Identifies one session: 128 random bits. Also a capability: any client that has it can
/// end the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// Parses 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Returns the first 8 digits: enough to find the session in the log, too few to end it.
    pub(crate) fn short(self) -> String {
        format!("{:08x}", (self.0 >> 96) as u32)
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

/// An SDP answer and the session it opens.
#[derive(Debug)]
pub struct Answer {
    /// The answer as SDP.
    pub sdp: String,
    /// Identifies the session.
    pub session: SessionId,
}

/// Why an offer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The offer is malformed or lacks a required attribute.
    #[error("The offer cannot be used: {0}.")]
    Sdp(#[from] webrtc::OfferError),
    /// The stream has B-frames, but WebRTC displays frames in the order in which they are sent.
    #[error("{}", Notice::B_FRAMES)]
    BFrames,
    /// The stream's video is not H.264.
    #[error(
        "The stream's video is {codec}; WebRTC viewers need H.264. In OBS, choose an H.264 encoder in Settings, Output."
    )]
    CodecUnsupported {
        /// The codec of the stream.
        codec: &'static str,
    },
    /// The offer lists neither H.264 with packetization-mode 1 nor Opus for what the stream has.
    #[error("The offer has no codec in common with the stream (H.264 with packetization-mode 1, Opus).")]
    NoCommonCodec,
    /// The node serves the configured maximum number of viewers.
    #[error("This node already serves {limit} WebRTC viewers.")]
    TooManyViewers {
        /// The maximum number of viewers.
        limit: usize,
    },
    /// The stream is published, but no frame has arrived yet.
    #[error("The stream has no video and no audio yet.")]
    NotYet,
}

/// The WHEP service, for the HTTP handlers. Clones share it.
#[derive(Debug, Clone)]
pub struct Whep(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Vec<Place>,
    fingerprint: Fingerprint,
    directory: Arc<Directory>,
    metrics: Metrics,
    video: PerStream<Feed>,
    audio: PerStream<Feed>,
}

/// The handle of one worker.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) candidates: Vec<SocketAddr>,
}

/// All sessions of this node, and the number of sessions per worker.
#[derive(Debug)]
pub(crate) struct Directory {
    max: usize,
    sessions: Mutex<HashMap<SessionId, (StreamName, usize)>>,
    per_worker: Vec<AtomicUsize>,
    fill: Fill,
}

impl Directory {
    pub(crate) fn new(max: usize, workers: usize) -> Self {
        let per_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { max, sessions: Mutex::default(), per_worker, fill: Fill::new(workers, MOST_AHEAD) }
    }

    /// Adds a session. Returns its worker, or `None` if the node is full or all workers have ended.
    fn add(&self, id: SessionId, stream: &StreamName, places: &[Place]) -> Option<usize> {
        let mut sessions = self.lock();
        if sessions.len() >= self.max {
            return None;
        }
        let open =
            |(place, open): (&Place, &AtomicUsize)| (!place.pulse.has_ended()).then(|| open.load(Ordering::Relaxed));
        let open: Vec<_> = places.iter().zip(&self.per_worker).map(open).collect();
        let worker = self.fill.pick(&open, || places.iter().map(|place| place.pulse.busy()).collect())?;
        self.per_worker[worker].fetch_add(1, Ordering::Relaxed);
        sessions.insert(id, (stream.clone(), worker));
        Some(worker)
    }

    pub(crate) fn remove(&self, id: &SessionId) {
        if let Some((_, worker)) = self.lock().remove(id) {
            self.per_worker[worker].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn find(&self, id: &SessionId) -> Option<(StreamName, usize)> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, (StreamName, usize)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Whep {
    pub(crate) fn new(
        places: Vec<Place>,
        fingerprint: Fingerprint,
        directory: Arc<Directory>,
        metrics: Metrics,
    ) -> Self {
        let (video, audio) = (PerStream::default(), PerStream::default());
        Self(Arc::new(Inner { places, fingerprint, directory, metrics, video, audio }))
    }

    /// Returns the metrics of the WebRTC gateway.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers an offer to play `stream` and creates a session, which then waits for its viewer to
    /// connect. Waits up to [`FIRST_TRACK_TIMEOUT`] for the tracks of a stream that has just begun.
    ///
    /// # Errors
    /// Fails if the offer cannot be used with this stream, or if the node is full.
    pub async fn offer(&self, hub: &Hub, stream: &Arc<Stream>, sdp: &str) -> Result<Answer, OfferError> {
        let offer = Offer::parse(sdp)?;
        let wants = |media| offer.sections.iter().any(|s| s.media == media && s.receives);
        let tracks = tracks(stream, wants(Media::Video), wants(Media::Audio)).await?;
        if tracks.b_frames && wants(Media::Video) {
            stream.notice("b_frames", Notice::B_FRAMES);
            return Err(OfferError::BFrames);
        }
        let video = wants(Media::Video).then(|| self.video(stream, &tracks)).transpose()?.flatten();
        let audio = wants(Media::Audio).then(|| self.audio(hub, stream, &tracks)).flatten();
        if let (Some((pictures, _)), Some(sound)) = (&video, &audio) {
            pictures.carry(sound);
        }
        self.open(stream, &offer, video, audio)
    }

    fn open(
        &self,
        stream: &Arc<Stream>,
        offer: &Offer,
        mut video: Option<(Arc<Feed>, u8)>,
        mut audio: Option<Arc<Feed>>,
    ) -> Result<Answer, OfferError> {
        let mut feeds = Vec::new();
        let mut sending = Vec::with_capacity(offer.sections.len());
        for section in &offer.sections {
            let accepted = section.receives.then(|| accept(section, &mut video, &mut audio)).flatten();
            sending.push(
                accepted.as_ref().map(|(feed, payload_type)| Sending { payload_type: *payload_type, ssrc: feed.ssrc }),
            );
            feeds.extend(accepted);
        }
        if feeds.is_empty() {
            return Err(OfferError::NoCommonCodec);
        }
        feeds.sort_by_key(|(feed, _)| feed.kind != MediaKind::Video);
        let id = SessionId(rand::random());
        let directory = &self.0.directory;
        let full = || OfferError::TooManyViewers { limit: directory.max };
        let worker = directory.add(id, stream.name(), &self.0.places).ok_or_else(full)?;
        let place = &self.0.places[worker];
        let credentials = credentials();
        let answer = webrtc::Answer {
            session_id: u64::from(rand::random::<u32>()),
            credentials: &credentials,
            fingerprint: self.0.fingerprint,
            candidates: &place.candidates,
            cname: CNAME,
        };
        let sdp = answer.encode(offer, &sending);
        let new = NewSession {
            id,
            stream: Arc::clone(stream),
            credentials,
            remote_ufrag: offer.ufrag.clone(),
            fingerprint: offer.fingerprint,
            feeds,
            guard: stream.viewer(ViewerKind::Webrtc),
        };
        if !place.mailbox.send(Command::Join(Box::new(new))) {
            directory.remove(&id);
            return Err(full());
        }
        Ok(Answer { sdp, session: id })
    }

    /// Returns true if the stream has an open session with this id.
    pub fn knows(&self, stream: &StreamName, id: &SessionId) -> bool {
        self.0.directory.find(id).is_some_and(|(of, _)| of == *stream)
    }

    /// Ends a session of this stream. Returns false if there is none.
    pub fn delete(&self, stream: &StreamName, id: &SessionId) -> bool {
        match self.0.directory.find(id) {
            Some((of, worker)) if of == *stream => self.0.places[worker].mailbox.send(Command::Leave(*id)),
            _ => false,
        }
    }

    /// Returns the packetizer of the video track and its `profile_idc`, or `None` if the stream
    /// has no video.
    fn video(&self, stream: &Arc<Stream>, tracks: &Tracks) -> Result<Option<(Arc<Feed>, u8)>, OfferError> {
        let Some(track) = &tracks.video else { return Ok(None) };
        if track.codec != Codec::H264 {
            let error = OfferError::CodecUnsupported { codec: track.codec.name() };
            stream.notice("codec_unsupported", &error.to_string());
            return Err(error);
        }
        let profile_idc = DecoderConfig::parse(&track.config).map_or(BASELINE, |config| config.profile);
        let feed = self.0.video.get_or_make(stream, || Feed::start(stream, MediaKind::Video));
        Ok(Some((feed, profile_idc)))
    }

    /// Returns the packetizer of the audio track as Opus. Returns `None`, so that viewers receive
    /// video only, if the stream has no audio or its audio cannot be transcoded.
    fn audio(&self, hub: &Hub, stream: &Arc<Stream>, tracks: &Tracks) -> Option<Arc<Feed>> {
        let track = tracks.audio.as_ref()?;
        let source = if track.codec == Codec::Opus {
            Arc::clone(stream)
        } else {
            match hub.rendition(stream, Codec::Opus) {
                Ok(rendition) => rendition,
                Err(e) => {
                    stream.notice("audio_codec", &format!("WebRTC viewers of this stream receive no audio: {e}."));
                    return None;
                }
            }
        };
        Some(self.0.audio.get_or_make(&source, || Feed::start(&source, MediaKind::Audio)))
    }
}

/// Assigns a packetizer to a media section. Only the first section of a kind is accepted.
fn accept(
    section: &Section,
    video: &mut Option<(Arc<Feed>, u8)>,
    audio: &mut Option<Arc<Feed>>,
) -> Option<(Arc<Feed>, u8)> {
    match section.media {
        Media::Video => {
            let payload_type = section.h264(video.as_ref()?.1)?;
            video.take().map(|(feed, _)| (feed, payload_type))
        }
        Media::Audio => {
            let payload_type = section.opus()?;
            audio.take().map(|feed| (feed, payload_type))
        }
        Media::Other => None,
    }
}

/// Waits for the requested tracks of a stream.
///
/// # Errors
/// Fails if the stream has no track after [`FIRST_TRACK_TIMEOUT`].
async fn tracks(stream: &Arc<Stream>, video: bool, audio: bool) -> Result<Tracks, OfferError> {
    let mut known = stream.tracks();
    let any = |t: &Tracks| t.video.is_some() || t.audio.is_some();
    let all = |t: &Tracks| (!video || t.video.is_some()) && (!audio || t.audio.is_some());
    match tokio::time::timeout(FIRST_TRACK, known.wait_for(any)).await {
        Ok(Ok(_)) => {}
        _ => return Err(OfferError::NotYet),
    }
    // A stream without audio never has both, so an older stream is not waited for.
    if u128::from(stream.age_ms()) < 2 * FIRST_TRACK.as_millis() {
        let _ = tokio::time::timeout(SECOND_TRACK, known.wait_for(all)).await;
    }
    let tracks = known.borrow().clone();
    Ok(tracks)
}

/// Generates ICE credentials of 48 and 144 random bits (RFC 8839 §5.4 requires 24 and 128).
fn credentials() -> Credentials {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let (ufrag, password): ([u8; 6], [u8; 18]) = (rand::random(), rand::random());
    Credentials { ufrag: STANDARD_NO_PAD.encode(ufrag), password: STANDARD_NO_PAD.encode(password) }
}

/// A worker gets at most this many sessions more than another. This number of viewers at 3 Mbit/s
/// keeps a slow core 20 % busy; all may arrive before the load is measured.
const MOST_AHEAD: usize = 256;
/// `profile_idc` of the Baseline profile, which every decoder supports (ITU-T H.264 §A.2.1).
const BASELINE: u8 = 66;
