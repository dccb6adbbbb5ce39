//! Offers in, answers out (draft-ietf-wish-whep-02 §4), and the directory of sessions behind it.

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

use super::feed::Feed;
use super::mailbox::{Command, Mailbox};
use super::metrics::Metrics;
use super::pulse::Pulse;
use super::session::{CNAME, NewSession};
use crate::fill::Fill;
use crate::hub::{Hub, PerStream, Stream, Tracks, ViewerKind};

/// How long an offer waits for the first frame of a stream that was only just published.
const FIRST_TRACK: Duration = Duration::from_secs(2);
/// How long it then waits for the other kind, if the offer asks for both.
const SECOND_TRACK: Duration = Duration::from_millis(300);

/// Names one session; whoever knows it may end it. 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Enough to find it in the log, too little to end it.
    pub(super) fn short(self) -> String {
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

/// An answer, and the session it opens.
#[derive(Debug)]
pub struct Answer {
    /// The SDP.
    pub sdp: String,
    /// The session.
    pub session: SessionId,
}

/// Why an offer was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The offer itself.
    #[error("The offer cannot be used: {0}.")]
    Sdp(#[from] webrtc::OfferError),
    /// WebRTC shows pictures in the order they are sent.
    #[error("{}", Notice::B_FRAMES)]
    BFrames,
    /// The stream's video is not H.264.
    #[error(
        "The stream's video is {codec}; WebRTC viewers need H.264. In OBS, choose an H.264 encoder in Settings, Output."
    )]
    CodecUnsupported {
        /// What it is.
        codec: &'static str,
    },
    /// The offer lists neither H.264 with packetization-mode 1 nor Opus for what the stream has.
    #[error("The offer has no codec in common with the stream (H.264 with packetization-mode 1, Opus).")]
    NoCommonCodec,
    /// The node is full.
    #[error("This node already serves {limit} WebRTC viewers.")]
    TooManyViewers {
        /// Viewers at most.
        limit: usize,
    },
    /// Published, but nothing has come yet.
    #[error("The stream has no picture and no sound yet.")]
    NotYet,
}

/// The handle the HTTP side uses. Cheap to clone.
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

/// Where a session can live.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) candidates: Vec<SocketAddr>,
}

/// All sessions of all workers, and how many each worker has.
#[derive(Debug)]
pub(super) struct Directory {
    max: usize,
    sessions: Mutex<HashMap<SessionId, (StreamName, usize)>>,
    per_worker: Vec<AtomicUsize>,
    fill: Fill,
}

impl Directory {
    pub(super) fn new(max: usize, workers: usize) -> Self {
        let per_worker = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { max, sessions: Mutex::default(), per_worker, fill: Fill::new(workers, MOST_AHEAD) }
    }

    /// Finds the worker for one more session and counts it there; `None` if the node is full or no worker is left.
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

    pub(super) fn remove(&self, id: &SessionId) {
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
    pub(super) fn new(
        places: Vec<Place>,
        fingerprint: Fingerprint,
        directory: Arc<Directory>,
        metrics: Metrics,
    ) -> Self {
        let (video, audio) = (PerStream::default(), PerStream::default());
        Self(Arc::new(Inner { places, fingerprint, directory, metrics, video, audio }))
    }

    /// What this room counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers an offer to watch `stream`; the session waits for its viewer from then on. Waits up to two seconds for the
    /// first frame of a stream that has only just begun.
    ///
    /// # Errors
    /// See [`OfferError`].
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

    /// True for a session of this stream that is not over.
    pub fn knows(&self, stream: &StreamName, id: &SessionId) -> bool {
        self.0.directory.find(id).is_some_and(|(of, _)| of == *stream)
    }

    /// Ends a session of this stream. False if there is none.
    pub fn delete(&self, stream: &StreamName, id: &SessionId) -> bool {
        match self.0.directory.find(id) {
            Some((of, worker)) if of == *stream => self.0.places[worker].mailbox.send(Command::Leave(*id)),
            _ => false,
        }
    }

    /// The pictures and their `profile_idc`.
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

    /// The sound, as Opus. A stream whose sound nobody can turn into Opus is watched in silence.
    fn audio(&self, hub: &Hub, stream: &Arc<Stream>, tracks: &Tracks) -> Option<Arc<Feed>> {
        let track = tracks.audio.as_ref()?;
        let source = if track.codec == Codec::Opus {
            Arc::clone(stream)
        } else {
            match hub.rendition(stream, Codec::Opus) {
                Ok(rendition) => rendition,
                Err(e) => {
                    stream.notice("audio_codec", &format!("WebRTC viewers of this stream hear nothing: {e}."));
                    return None;
                }
            }
        };
        Some(self.0.audio.get_or_make(&source, || Feed::start(&source, MediaKind::Audio)))
    }
}

/// The first section of a kind gets its feed; a second one is rejected.
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

/// The tracks, as soon as those that are wanted are known.
async fn tracks(stream: &Arc<Stream>, video: bool, audio: bool) -> Result<Tracks, OfferError> {
    let mut known = stream.tracks();
    let any = |t: &Tracks| t.video.is_some() || t.audio.is_some();
    let all = |t: &Tracks| (!video || t.video.is_some()) && (!audio || t.audio.is_some());
    match tokio::time::timeout(FIRST_TRACK, known.wait_for(any)).await {
        Ok(Ok(_)) => {}
        _ => return Err(OfferError::NotYet),
    }
    // A stream without sound never has both. One that has run for a while is not waited for.
    if u128::from(stream.age_ms()) < 2 * FIRST_TRACK.as_millis() {
        let _ = tokio::time::timeout(SECOND_TRACK, known.wait_for(all)).await;
    }
    let tracks = known.borrow().clone();
    Ok(tracks)
}

/// 48 and 144 random bits (RFC 8839 §5.4 asks for 24 and 128).
fn credentials() -> Credentials {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let (ufrag, password): ([u8; 6], [u8; 18]) = (rand::random(), rand::random());
    Credentials { ufrag: STANDARD_NO_PAD.encode(ufrag), password: STANDARD_NO_PAD.encode(password) }
}

/// See [`Fill`]. So many viewers of 3 Mbit/s keep a slow core a fifth busy: until that shows, they may all have come.
const MOST_AHEAD: usize = 256;
/// `profile_idc` of the profile every decoder has (ITU-T H.264 §A.2.1).
const BASELINE: u8 = 66;
