//! One worker: a thread that owns a socket, its sessions, and replicas of the packet rings
//! that they read.
//!
//! Waits for a datagram, a command or a ring update; then queues everything that is due and sends
//! it with one flush.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_wire::MediaKind;
use headwater_wire::rtp::Ring;
use headwater_wire::webrtc::{BindingRequest, Feedback, Kind, StunError};

use crate::gateway::webrtc::metrics::{Ignored, Metrics};
use crate::gateway::webrtc::play::mailbox::{Command, Listener, Mailbox};
use crate::gateway::webrtc::play::packetizer::{End, Feed, View};
use crate::gateway::webrtc::play::prefetch::prefetch;
use crate::gateway::webrtc::play::send_track::Track;
use crate::gateway::webrtc::play::session::{Checked, NewSession, Session};
use crate::gateway::webrtc::signalling::{Directory, SessionId};
use crate::gateway::webrtc::transport::dtls::{Identity, Progress};
use crate::gateway::webrtc::transport::liveness::Pulse;
use crate::gateway::webrtc::transport::rx_coalescing::Moderation;
use crate::gateway::webrtc::transport::udp::{Path, Socket};

/// Maximum number of packets sent to a viewer at once. A frame at 3 Mbit/s has ten packets, most
/// key frames fit, and a GSO message holds no more. The rest follows in slices, so that the queue
/// of a slow link does not overflow.
const BURST_PACKETS: u32 = 54;
/// Interval between slices: 54 packets of 1,180 bytes every 5 ms are 100 Mbit/s.
const SLICE_EVERY: Duration = Duration::from_millis(5);
/// Interval between checks of sessions in a handshake: retransmissions, expiry.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// Connected sessions are checked once per this number of ticks, so once a second:
/// sender reports, expiry.
const TURNS: usize = 10;
/// While the packets of one viewer are sealed, the keys of the viewer this many positions
/// later are prefetched.
const AHEAD: usize = 2;
/// Maximum number of batches of datagrams received before other work.
const MAX_BATCHES: usize = 8;
/// Minimum interval between key frame requests of one viewer that are forwarded.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);

pub(crate) struct Worker {
    pub(crate) socket: Socket,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) shared: Shared,
    sessions: Vec<Option<Box<Session>>>,
    free: Vec<usize>,
    by_ufrag: HashMap<String, usize>,
    by_address: HashMap<SocketAddr, usize>,
    by_id: HashMap<SessionId, usize>,
    /// By packetizer id. Few entries, looked up per packet.
    feeds: BTreeMap<u64, Watched>,
    /// Sessions that are not connected, or have not sent their first sender report.
    young: Vec<usize>,
    turn: usize,
    /// Sessions with more packets to send than one burst.
    behind: Vec<usize>,
    moderation: Moderation,
}

/// State shared by all workers.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) identity: Arc<Identity>,
    pub(crate) metrics: Metrics,
    pub(crate) directory: Arc<Directory>,
    pub(crate) consent: Duration,
}

/// A worker's copy of the packet ring of a packetizer with viewers on this worker.
struct Watched {
    feed: Arc<Feed>,
    listener: Arc<Listener>,
    ring: Ring,
    view: View,
    /// Session slots that receive this track.
    viewers: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(socket: Socket, mailbox: Arc<Mailbox>, pulse: Arc<Pulse>, shared: Shared) -> Self {
        Self {
            socket,
            mailbox,
            pulse,
            shared,
            sessions: Vec::new(),
            free: Vec::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_id: HashMap::new(),
            feeds: BTreeMap::new(),
            young: Vec::new(),
            turn: 0,
            behind: Vec::new(),
            moderation: Moderation::default(),
        }
    }

    /// Runs until [`Command::Stop`].
    pub(crate) fn run(mut self) {
        let _heart = self.pulse.start();
        let mut next_tick = Instant::now() + TICK_EVERY;
        let mut next_slice = Instant::now();
        loop {
            let until = if self.behind.is_empty() { next_tick } else { next_tick.min(next_slice) };
            let readable = self.wait(until);
            let woke = Instant::now();
            let inbox = self.mailbox.take();
            for command in inbox.commands {
                match command {
                    Command::Join(new) => self.join(*new),
                    Command::Leave(id) => {
                        if let Some(&slot) = self.by_id.get(&id) {
                            self.end(slot, "left");
                        }
                    }
                    Command::Stop => return self.stop(),
                    #[cfg(test)]
                    Command::Panic => panic!("requested by a test"),
                }
            }
            if readable {
                self.receive();
            }
            let now = Instant::now();
            for feed in inbox.news {
                self.on_news(feed);
            }
            self.pulse.beat(now);
            if now >= next_slice && !self.behind.is_empty() {
                self.send_slices();
                next_slice = now + SLICE_EVERY;
            }
            if now >= next_tick {
                self.on_tick(now);
                next_tick = now + TICK_EVERY;
            }
            self.socket.flush();
            self.shared.metrics.unsent_packets.inc_by(std::mem::take(&mut self.socket.unsent));
            self.shared.metrics.bytes.inc_by(std::mem::take(&mut self.socket.sent_bytes));
            self.pulse.worked(woke.elapsed());
        }
    }

    /// Waits for a datagram, the mailbox or `until`. Returns true if datagrams may be available.
    fn wait(&mut self, until: Instant) -> bool {
        if !self.young.is_empty() {
            self.moderation.hurry();
        }
        let now = Instant::now();
        let Some(rest) = self.moderation.rests_until(now) else {
            return self.socket.wait(until.saturating_duration_since(now));
        };
        self.socket.wait_deaf(until.min(rest).saturating_duration_since(now));
        self.moderation.rests_until(Instant::now()).is_none()
    }

    fn stop(mut self) {
        for slot in 0..self.sessions.len() {
            self.end(slot, "node stops");
        }
        self.socket.flush();
    }

    fn join(&mut self, new: NewSession) {
        let session = Box::new(Session::new(new, Instant::now()));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.by_ufrag.insert(session.credentials.ufrag.clone(), slot);
        self.by_id.insert(session.id, slot);
        self.sessions[slot] = Some(session);
        self.young.push(slot);
        self.shared.metrics.sessions.inc();
        self.shared.metrics.sessions_total.inc();
    }

    /// Closes a session and sends BYE and close_notify.
    fn end(&mut self, slot: usize, reason: &'static str) {
        self.close(slot, reason, true);
    }

    fn close(&mut self, slot: usize, reason: &'static str, goodbye: bool) {
        let Some(mut session) = self.sessions.get_mut(slot).and_then(Option::take) else { return };
        let now = Instant::now();
        if goodbye {
            session.say_goodbye(now, &mut self.socket);
        }
        self.by_ufrag.remove(&session.credentials.ufrag);
        self.by_id.remove(&session.id);
        for address in &session.addresses {
            if self.by_address.get(address) == Some(&slot) {
                self.by_address.remove(address);
            }
        }
        for track in &session.outlet.tracks {
            self.unwatch(track, slot);
        }
        self.behind.retain(|&s| s != slot);
        self.young.retain(|&s| s != slot);
        self.free.push(slot);
        self.shared.directory.remove(&session.id);
        self.shared.metrics.sessions.dec();
        let peer = session.peer().map(|p| p.to_string()).unwrap_or_default();
        log::info!(
            stream = session.stream.name().as_str(), viewer = session.id.short().as_str(), peer = peer.as_str(), reason,
            packets = session.outlet.tracks.iter().map(|t| u64::from(t.packets)).sum::<u64>(),
            bytes = session.outlet.tracks.iter().map(|t| u64::from(t.payload_bytes)).sum::<u64>(),
            elapsed_ms = now.saturating_duration_since(session.opened).as_millis() as u64;
            "webrtc viewer closed"
        );
    }

    fn receive(&mut self) {
        for n in 0..MAX_BATCHES {
            let batch = self.socket.receive();
            let now = Instant::now();
            for (path, bytes) in batch.iter() {
                let slot = self.by_address.get(&path.peer).copied();
                let handled = catch_unwind(AssertUnwindSafe(|| self.on_datagram(now, path, bytes)));
                if handled.is_err() {
                    log::error!(peer:% = path.peer; "a datagram caused a bug, its session is closed");
                    slot.into_iter().for_each(|slot| self.close(slot, "bug", false));
                }
            }
            let (is_empty, is_full) = (batch.is_empty(), batch.is_full());
            self.socket.recycle(batch);
            if is_full {
                continue;
            }
            if !is_empty {
                self.moderation.heard(now, self.by_id.len(), n > 0);
            }
            break;
        }
    }

    fn on_datagram(&mut self, now: Instant, path: &Path, datagram: &[u8]) {
        let ignored = match Kind::of(datagram) {
            Kind::Stun => self.on_stun(now, path, datagram),
            Kind::Dtls => self.on_dtls(now, path, datagram),
            Kind::Rtcp => self.on_rtcp(now, path, datagram),
            Kind::Rtp => Some(Ignored::Rtp),
            Kind::Unknown => Some(Ignored::Garbage),
        };
        if let Some(reason) = ignored {
            self.shared.metrics.ignore(reason);
            log::trace!(peer:% = path.peer, reason:? = reason; "datagram ignored");
        }
    }

    fn on_stun(&mut self, now: Instant, path: &Path, datagram: &[u8]) -> Option<Ignored> {
        let mut request = match BindingRequest::parse(datagram) {
            Ok(request) => request,
            Err(StunError::NoCredentials) => return Some(Ignored::UnknownUser),
            Err(_) => return Some(Ignored::Garbage),
        };
        let Some(&slot) = self.by_ufrag.get(request.receiver_ufrag()) else { return Some(Ignored::UnknownUser) };
        let session = self.sessions[slot].as_mut()?;
        let crypto = self.shared.identity.provider.crypto();
        match session.on_check(now, &mut request, path, &mut self.socket, crypto) {
            Ok(Checked::Valid { forgotten }) => {
                if let Some(old) = forgotten.filter(|old| self.by_address.get(old) == Some(&slot)) {
                    self.by_address.remove(&old);
                }
                self.by_address.insert(path.peer, slot);
                None
            }
            Ok(Checked::Answered) => None,
            Ok(Checked::Replayed) => Some(Ignored::Replayed),
            Err(_) => Some(Ignored::WrongPassword),
        }
    }

    fn on_dtls(&mut self, now: Instant, path: &Path, datagram: &[u8]) -> Option<Ignored> {
        let Some(&slot) = self.by_address.get(&path.peer) else { return Some(Ignored::UnknownAddress) };
        let session = self.sessions[slot].as_mut()?;
        match session.on_dtls(now, datagram, &mut self.socket, &self.shared.identity) {
            Ok(Progress::Nothing) => None,
            Ok(Progress::Connected(srtp)) => {
                session.connect(*srtp);
                self.start_tracks(slot);
                None
            }
            Ok(Progress::WrongCertificate) => {
                self.shared.metrics.wrong_certificates.inc();
                log::warn!(peer:% = path.peer; "viewer has another certificate than its offer named");
                self.close(slot, "wrong certificate", false);
                None
            }
            Ok(Progress::Closed) => {
                self.close(slot, "closed by the viewer", false);
                None
            }
            Err(e) => {
                log::debug!(peer:% = path.peer, err:% = e; "DTLS datagram refused");
                Some(Ignored::BadDtls)
            }
        }
    }

    /// Creates the tracks of a connected session and sends the first burst.
    fn start_tracks(&mut self, slot: usize) {
        let Some(session) = self.sessions[slot].as_mut() else { return };
        let peer = session.peer().map(|p| p.to_string()).unwrap_or_default();
        log::info!(
            stream = session.stream.name().as_str(), viewer = session.id.short().as_str(), peer = peer.as_str(),
            elapsed_ms = session.opened.elapsed().as_millis() as u64;
            "webrtc viewer opened"
        );
        let rides = session.feeds.len() > 1;
        for (feed, payload_type) in std::mem::take(&mut session.feeds) {
            let mailbox = &self.mailbox;
            let watched = self.feeds.entry(feed.id).or_insert_with(|| {
                let (listener, ring, view) = feed.listen(mailbox);
                Watched { feed: Arc::clone(&feed), listener, ring, view, viewers: Vec::new() }
            });
            watched.viewers.push(slot);
            feed.join(rides);
            if feed.kind == MediaKind::Video && !watched.ring.has_start() {
                feed.stream.request_key_frame();
            }
            session.outlet.tracks.push(Track::new(&feed, &watched.ring, payload_type, rand::random(), rides));
        }
        self.send_new(&[slot], None);
        self.socket.flush();
        let ended =
            |s: &Session| s.outlet.tracks.first().and_then(|t| self.feeds.get(&t.feed)).and_then(|w| w.view.ended);
        if self.sessions[slot].as_deref().and_then(ended).is_some() {
            self.end(slot, "stream ended");
        }
    }

    fn unwatch(&mut self, track: &Track, slot: usize) {
        if let Some(watched) = self.feeds.get_mut(&track.feed) {
            watched.viewers.retain(|&s| s != slot);
            watched.feed.leave(track.rides);
            if watched.viewers.is_empty() {
                watched.feed.unlisten(&watched.listener);
                self.feeds.remove(&track.feed);
            }
        }
    }

    fn on_rtcp(&mut self, now: Instant, path: &Path, datagram: &[u8]) -> Option<Ignored> {
        let Some(&slot) = self.by_address.get(&path.peer) else { return Some(Ignored::UnknownAddress) };
        let session = self.sessions[slot].as_mut()?;
        let Some(opened) = session.open_rtcp(datagram) else { return Some(Ignored::BadRtcp) };
        let Some(feedback) = Feedback::parse(&opened) else { return Some(Ignored::BadRtcp) };
        for feedback in feedback {
            match feedback {
                Feedback::Nack { ssrc, sequence_numbers } => self.on_nack(now, slot, ssrc, &sequence_numbers),
                Feedback::KeyFrame { ssrc } => self.on_key_frame_request(now, slot, ssrc),
                Feedback::Report { .. } => {}
                Feedback::Bye => {
                    self.close(slot, "closed by the viewer", true);
                    return None;
                }
            }
        }
        None
    }

    fn on_nack(&mut self, now: Instant, slot: usize, ssrc: u32, sequence_numbers: &[u16]) {
        self.shared.metrics.nacked_packets.inc_by(sequence_numbers.len() as u64);
        let Some(session) = self.sessions[slot].as_deref_mut() else { return };
        let Session { outlet, resends, .. } = session;
        let Some((tracks, mut way)) = outlet.split(&mut self.socket) else { return };
        let Some(track) = tracks.iter_mut().find(|t| t.ssrc == ssrc) else { return };
        let Some(watched) = self.feeds.get(&track.feed) else { return };
        let allowed = resends.left(now);
        let mut sent = 0;
        for &number in sequence_numbers {
            if sent == allowed {
                break;
            }
            sent += u32::from(track.send_again(&watched.ring, number, &mut way));
        }
        resends.spend(sent);
        self.shared.metrics.retransmitted_packets.inc_by(u64::from(sent));
    }

    fn on_key_frame_request(&mut self, now: Instant, slot: usize, ssrc: u32) {
        self.shared.metrics.key_frame_requests.inc();
        let Some(session) = self.sessions[slot].as_mut() else { return };
        let recently = session.key_frame_asked.is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_EVERY);
        if !recently && session.outlet.tracks.iter().any(|t| t.ssrc == ssrc) {
            session.key_frame_asked = Some(now);
            session.stream.request_key_frame();
        }
    }

    fn on_news(&mut self, feed: u64) {
        let Some(watched) = self.feeds.get_mut(&feed) else { return };
        watched.catch_up();
        let ended = watched.view.ended;
        if watched.feed.kind == MediaKind::Video {
            let sound = watched.feed.sound();
            if let Some(sound) = sound.and_then(|sound| self.feeds.get_mut(&sound.id)) {
                sound.catch_up();
            }
            self.send_feed(feed, None);
        } else {
            self.send_feed(feed, Some(feed));
        }
        if let Some(end) = ended {
            self.on_feed_end(feed, end);
        }
    }

    /// Sends new packets to all viewers of a packetizer.
    fn send_feed(&mut self, feed: u64, only: Option<u64>) {
        let Some(watched) = self.feeds.get_mut(&feed) else { return };
        let viewers = std::mem::take(&mut watched.viewers);
        self.send_new(&viewers, only);
        if let Some(watched) = self.feeds.get_mut(&feed) {
            watched.viewers = viewers;
        }
    }

    /// Closes the sessions whose video or whose stream has ended. A session that loses only its
    /// audio continues with video.
    fn on_feed_end(&mut self, feed: u64, end: End) {
        let Some(watched) = self.feeds.get(&feed) else { return };
        let pictures = watched.feed.kind == MediaKind::Video;
        for slot in watched.viewers.clone() {
            let Some(session) = self.sessions[slot].as_mut() else { continue };
            if pictures || session.outlet.tracks.len() == 1 || session.stream.is_ended() {
                let reason = match end {
                    End::Stream => "stream ended",
                    End::BFrames => "b-frames",
                    End::Codec => "codec changed",
                };
                self.end(slot, reason);
            } else {
                let gone =
                    session.outlet.tracks.iter().position(|t| t.feed == feed).map(|n| session.outlet.tracks.remove(n));
                if let Some(track) = gone {
                    self.unwatch(&track, slot);
                }
            }
        }
    }

    /// Sends the next slice to the sessions in the backlog.
    fn send_slices(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        for &slot in &behind {
            if let Some(session) = &mut self.sessions[slot] {
                session.behind = false;
            }
        }
        self.send_new(&behind, None);
    }

    /// Sends new packets of all tracks, or of one, to each viewer, at most one burst: video first.
    fn send_new(&mut self, viewers: &[usize], only: Option<u64>) {
        let mut packets = 0;
        for (n, &slot) in viewers.iter().enumerate() {
            if let Some(later) = viewers.get(n + AHEAD).and_then(|&later| self.sessions[later].as_deref()) {
                prefetch(&later.outlet);
            }
            let Some(session) = self.sessions[slot].as_deref_mut() else { continue };
            let Some((tracks, mut way)) = session.outlet.split(&mut self.socket) else { continue };
            let mut budget = BURST_PACKETS;
            let mut more = false;
            for track in tracks.iter_mut().filter(|track| only.is_none_or(|only| track.feed == only)) {
                if let Some(watched) = self.feeds.get(&track.feed) {
                    more |= track.send_new(&watched.ring, &mut way, &mut budget);
                }
            }
            packets += u64::from(BURST_PACKETS - budget);
            if more && !session.behind {
                session.behind = true;
                self.behind.push(slot);
            }
        }
        self.shared.metrics.packets.inc_by(packets);
    }

    /// Checks the new sessions and one tenth of the connected ones.
    fn on_tick(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.young) {
            if !self.look_at(slot, now) {
                self.young.push(slot);
            }
        }
        for slot in (self.turn..self.sessions.len()).step_by(TURNS) {
            if self.sessions[slot].as_deref().is_some_and(Session::is_connected) {
                self.look_at(slot, now);
            }
        }
        self.turn = (self.turn + 1) % TURNS;
    }

    /// Closes an expired session, advances the handshake or sends reports. Returns false if the
    /// handshake is still in progress.
    fn look_at(&mut self, slot: usize, now: Instant) -> bool {
        let Some(session) = self.sessions[slot].as_deref_mut() else { return true };
        if !session.on_time(now, self.shared.consent, &mut self.socket) {
            let reason = if session.is_connected() { "expired" } else { "never connected" };
            self.end(slot, reason);
            return true;
        }
        let feeds = &self.feeds;
        let anchor = session.outlet.tracks.iter().find_map(|t| feeds.get(&t.feed)?.view.anchor);
        if let Some(anchor) = anchor {
            session.send_reports(now, anchor, &mut self.socket, |feed| {
                feeds.get(&feed).map(|w| (w.feed.timestamp_offset, w.feed.clock_hz))
            });
        }
        session.is_connected()
    }
}

impl Watched {
    fn catch_up(&mut self) {
        self.listener.looked();
        self.view = self.feed.catch_up(&mut self.ring);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
