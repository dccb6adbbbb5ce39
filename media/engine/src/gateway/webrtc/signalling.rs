//! WHEP signalling (draft-ietf-wish-whep-02 §4): answers SDP offers and creates sessions on the
//! workers.
//!
//! Offers come from the HTTP handlers; answers return to them, and new sessions go to a worker's
//! mailbox. Must not know HTTP or sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_api::StreamName;
use headwater_api::rest::Notice;
use headwater_wire::codec::h264::DecoderConfig;
use headwater_wire::webrtc::{self, Fingerprint, Offer, Section, SectionKind, SendParameters};
use headwater_wire::{Codec, MediaKind};
use tokio::sync::Semaphore;

use crate::access::{Access, Grounds};
use crate::gateway::webrtc::directory::SessionDirectory;
use crate::gateway::webrtc::metrics::Metrics;
use crate::gateway::webrtc::play::mailbox::Command;
use crate::gateway::webrtc::play::packetizer::StreamPacketizer;
use crate::gateway::webrtc::play::session::{CNAME, NewSession};
use crate::gateway::webrtc::play::worker_handle::WorkerHandle;
use crate::gateway::webrtc::transport::ice::generate_credentials;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::hub::{Hub, PerStream, Stream, Tracks};
use crate::runtime::client_pool::PoolError;

/// How long an offer waits for the first track of a stream that has just been published.
const FIRST_TRACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of offers that are parsed at the same time.
const MAX_PARSERS: usize = 2;
/// How long an offer for audio and video then waits for the second track.
const SECOND_TRACK_TIMEOUT: Duration = Duration::from_millis(300);

/// An SDP answer and the session it opens.
#[derive(Debug)]
pub struct Answer {
    /// The answer as SDP.
    pub sdp: String,
    /// Identifies the session.
    pub session_id: SessionId,
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
    /// The client has its share of the sessions or offers of a node that is more than half full.
    #[error("Your address already has its share of the WebRTC sessions of this node.")]
    ShareUsed,
    /// The stream is published, but no frame has arrived yet.
    #[error("The stream has no video and no audio yet.")]
    NoTracksYet,
}

/// The WHEP service, for the HTTP handlers. Clones share it.
#[derive(Debug, Clone)]
pub struct Whep(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    workers: Vec<WorkerHandle>,
    fingerprint: Fingerprint,
    directory: Arc<SessionDirectory>,
    metrics: Metrics,
    /// Limits the number of offers that are parsed at the same time.
    parsers: Semaphore,
    video_packetizers: PerStream<StreamPacketizer>,
    audio_packetizers: PerStream<StreamPacketizer>,
}

impl Whep {
    pub(crate) fn new(
        workers: Vec<WorkerHandle>,
        fingerprint: Fingerprint,
        directory: Arc<SessionDirectory>,
        metrics: Metrics,
    ) -> Self {
        let (video_packetizers, audio_packetizers) = (PerStream::default(), PerStream::default());
        let parsers = Semaphore::new(MAX_PARSERS);
        Self(Arc::new(Inner {
            workers,
            fingerprint,
            directory,
            metrics,
            parsers,
            video_packetizers,
            audio_packetizers,
        }))
    }

    /// Returns the metrics of the WebRTC gateway.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers an offer to play `stream` and creates a session, which then waits for its viewer to
    /// connect. Waits up to two seconds for the tracks of a stream that has just begun.
    ///
    /// # Errors
    /// Fails if the offer cannot be used with this stream, or if the node is full.
    pub async fn offer(
        &self,
        hub: &Hub,
        stream: &Arc<Stream>,
        sdp: &str,
        client: IpAddr,
    ) -> Result<Answer, OfferError> {
        let offer = self.parse_offer(sdp).await?;
        let wants = |kind| offer.sections.iter().any(|s| s.kind == kind && s.receives);
        let tracks = wait_for_tracks(stream, wants(SectionKind::Video), wants(SectionKind::Audio)).await?;
        if tracks.b_frames && wants(SectionKind::Video) {
            stream.add_notice("b_frames", Notice::B_FRAMES);
            return Err(OfferError::BFrames);
        }
        let video = wants(SectionKind::Video).then(|| self.video_packetizer(stream, &tracks)).transpose()?.flatten();
        let audio = wants(SectionKind::Audio).then(|| self.audio_packetizer(hub, stream, &tracks)).flatten();
        if let (Some((video, _)), Some(audio)) = (&video, &audio) {
            video.attach_audio(audio);
        }
        self.open_session(stream, &offer, video, audio, client)
    }

    /// Parses an offer on a thread that serves no media, and only a few offers at a time: an offer
    /// of the maximum length takes milliseconds.
    async fn parse_offer(&self, sdp: &str) -> Result<Offer, OfferError> {
        // The semaphore is never closed.
        let _permit = self.0.parsers.acquire().await;
        let sdp = sdp.to_owned();
        let parsed = tokio::task::spawn_blocking(move || Offer::parse(&sdp)).await;
        // A panic of the parser, or the end of the program.
        Ok(parsed.unwrap_or(Err(webrtc::OfferError::Malformed))?)
    }

    fn open_session(
        &self,
        stream: &Arc<Stream>,
        offer: &Offer,
        mut video: Option<(Arc<StreamPacketizer>, u8)>,
        mut audio: Option<Arc<StreamPacketizer>>,
        client: IpAddr,
    ) -> Result<Answer, OfferError> {
        let mut packetizers = Vec::new();
        let mut sending = Vec::with_capacity(offer.sections.len());
        for section in &offer.sections {
            let accepted = section.receives.then(|| accept_section(section, &mut video, &mut audio)).flatten();
            sending.push(accepted.as_ref().map(|(packetizer, payload_type)| SendParameters {
                payload_type: *payload_type,
                ssrc: packetizer.ssrc,
            }));
            packetizers.extend(accepted);
        }
        if packetizers.is_empty() {
            return Err(OfferError::NoCommonCodec);
        }
        packetizers.sort_by_key(|(packetizer, _)| packetizer.kind != MediaKind::Video);
        let id = SessionId::random();
        let directory = &self.0.directory;
        let full = || OfferError::TooManyViewers { limit: directory.max_sessions() };
        let added = directory.add(id, stream.name(), &self.0.workers, client).map_err(|e| match e {
            PoolError::Full { .. } => full(),
            PoolError::ShareUsed { .. } => OfferError::ShareUsed,
        })?;
        if let Some((displaced, worker)) = added.displaced {
            self.0.workers[worker].mailbox.send(Command::Displace(displaced));
        }
        let handle = &self.0.workers[added.worker];
        let credentials = generate_credentials();
        let answer = webrtc::Answer {
            session_id: u64::from(rand::random::<u32>()),
            credentials: &credentials,
            fingerprint: self.0.fingerprint,
            candidates: &handle.candidates,
            cname: CNAME,
        };
        let sdp = answer.encode(offer, &sending);
        let new = NewSession {
            id,
            stream: Arc::clone(stream),
            local: credentials,
            remote: offer.credentials.clone(),
            fingerprint: offer.fingerprint,
            packetizers,
        };
        if !handle.mailbox.send(Command::Join(Box::new(new))) {
            directory.remove(&id);
            return Err(full());
        }
        Ok(Answer { sdp, session_id: id })
    }

    /// Ends a session when its viewer would no longer be admitted.
    pub fn hold(&self, id: &SessionId, access: &Access, grounds: Grounds) {
        let Some((_, worker)) = self.0.directory.find(id) else { return };
        let (whep, id) = (Arc::downgrade(&self.0), *id);
        let permit = access.hold(grounds, move |reason| {
            if let Some(whep) = whep.upgrade() {
                whep.workers[worker].mailbox.send(Command::Revoke(id, reason.code()));
            }
        });
        self.0.directory.set_permit(&id, permit);
    }

    /// Returns true if the stream has an open session with this id.
    pub fn contains(&self, stream: &StreamName, id: &SessionId) -> bool {
        self.0.directory.find(id).is_some_and(|(name, _)| name == *stream)
    }

    /// Ends a session of this stream. Returns false if there is none.
    pub fn close_session(&self, stream: &StreamName, id: &SessionId) -> bool {
        match self.0.directory.find(id) {
            Some((name, worker)) if name == *stream => self.0.workers[worker].mailbox.send(Command::Leave(*id)),
            _ => false,
        }
    }

    /// Returns the packetizer of the video track and its `profile_idc`, or `None` if the stream
    /// has no video.
    fn video_packetizer(
        &self,
        stream: &Arc<Stream>,
        tracks: &Tracks,
    ) -> Result<Option<(Arc<StreamPacketizer>, u8)>, OfferError> {
        let Some(track) = &tracks.video else { return Ok(None) };
        if track.codec != Codec::H264 {
            let error = OfferError::CodecUnsupported { codec: track.codec.name() };
            stream.add_notice("codec_unsupported", &error.to_string());
            return Err(error);
        }
        let profile_idc = DecoderConfig::parse(&track.config).map_or(BASELINE_PROFILE_IDC, |config| config.profile);
        let packetizer =
            self.0.video_packetizers.get_or_create(stream, || StreamPacketizer::spawn(stream, MediaKind::Video));
        Ok(Some((packetizer, profile_idc)))
    }

    /// Returns the packetizer of the audio track as Opus. Returns `None`, so that viewers receive
    /// video only, if the stream has no audio or its audio cannot be transcoded.
    fn audio_packetizer(&self, hub: &Hub, stream: &Arc<Stream>, tracks: &Tracks) -> Option<Arc<StreamPacketizer>> {
        let track = tracks.audio.as_ref()?;
        let source = if track.codec == Codec::Opus {
            Arc::clone(stream)
        } else {
            match hub.rendition(stream, Codec::Opus) {
                Ok(rendition) => rendition,
                Err(e) => {
                    stream.add_notice("audio_codec", &format!("WebRTC viewers of this stream receive no audio: {e}."));
                    return None;
                }
            }
        };
        Some(self.0.audio_packetizers.get_or_create(&source, || StreamPacketizer::spawn(&source, MediaKind::Audio)))
    }
}

/// Assigns a packetizer to a media section. Only the first section of a kind is accepted.
fn accept_section(
    section: &Section,
    video: &mut Option<(Arc<StreamPacketizer>, u8)>,
    audio: &mut Option<Arc<StreamPacketizer>>,
) -> Option<(Arc<StreamPacketizer>, u8)> {
    match section.kind {
        SectionKind::Video => {
            let payload_type = section.h264(video.as_ref()?.1)?;
            video.take().map(|(packetizer, _)| (packetizer, payload_type))
        }
        SectionKind::Audio => {
            let payload_type = section.opus()?;
            audio.take().map(|packetizer| (packetizer, payload_type))
        }
        SectionKind::Other => None,
    }
}

/// Waits for the requested tracks of a stream.
///
/// # Errors
/// Fails if the stream has no track after [`FIRST_TRACK_TIMEOUT`].
async fn wait_for_tracks(stream: &Arc<Stream>, video: bool, audio: bool) -> Result<Tracks, OfferError> {
    let mut tracks_rx = stream.tracks();
    let any = |t: &Tracks| t.video.is_some() || t.audio.is_some();
    let all = |t: &Tracks| (!video || t.video.is_some()) && (!audio || t.audio.is_some());
    match tokio::time::timeout(FIRST_TRACK_TIMEOUT, tracks_rx.wait_for(any)).await {
        Ok(Ok(_)) => {}
        _ => return Err(OfferError::NoTracksYet),
    }
    // A stream without audio never has both, so an older stream is not waited for.
    if u128::from(stream.age_ms()) < 2 * FIRST_TRACK_TIMEOUT.as_millis() {
        let _ = tokio::time::timeout(SECOND_TRACK_TIMEOUT, tracks_rx.wait_for(all)).await;
    }
    let tracks = tracks_rx.borrow().clone();
    Ok(tracks)
}

/// `profile_idc` of the Baseline profile, which every decoder supports (ITU-T H.264 §A.2.1).
const BASELINE_PROFILE_IDC: u8 = 66;
