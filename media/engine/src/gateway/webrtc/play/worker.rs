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

use crate::events::{Event, EventBus, Protocol};
use crate::gateway::webrtc::directory::SessionDirectory;
use crate::gateway::webrtc::limits::Limits;
use crate::gateway::webrtc::metrics::Metrics;
use crate::gateway::webrtc::play::mailbox::{Command, Mailbox};
use crate::gateway::webrtc::play::packetizer::{PacketizerEnd, PacketizerStatus, StreamPacketizer};
use crate::gateway::webrtc::play::prefetch::prefetch;
use crate::gateway::webrtc::play::ring_subscription::RingSubscription;
use crate::gateway::webrtc::play::send_track::SendTrack;
use crate::gateway::webrtc::play::session::{NewSession, Session};
use crate::gateway::webrtc::transport::dtls::Identity;
use crate::gateway::webrtc::transport::liveness::Liveness;
use crate::gateway::webrtc::transport::rx_coalescing::RxCoalescing;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::gateway::webrtc::transport::srtp::SrtpSession;
use crate::gateway::webrtc::transport::udp::Socket;

/// Maximum number of packets sent to a viewer at once. A frame at 3 Mbit/s has ten packets, most
/// key frames fit, and a GSO message holds no more. The rest follows in slices, so that the queue
/// of a slow link does not overflow.
const BURST_PACKETS: u32 = 54;
/// Interval between slices: 54 packets of 1,180 bytes every 5 ms are 100 Mbit/s.
const SLICE_INTERVAL: Duration = Duration::from_millis(5);
/// Interval between checks of sessions in a handshake: retransmissions, expiry.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// Connected sessions are checked once per this number of ticks, so once a second:
/// sender reports, expiry.
const TICKS_PER_ROUND: usize = 10;
/// While the packets of one viewer are sealed, the keys of the viewer this many positions
/// later are prefetched.
const PREFETCH_DISTANCE: usize = 2;
/// Maximum number of batches of datagrams received before other work.
const MAX_BATCHES: usize = 8;

pub(crate) struct Worker {
    pub(crate) socket: Socket,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) context: SharedContext,
    pub(super) sessions: Vec<Option<Box<Session>>>,
    free_slots: Vec<usize>,
    pub(super) by_ufrag: HashMap<String, usize>,
    /// The session to which DTLS and RTCP from an address belong; see `claim_address`.
    pub(super) by_address: HashMap<SocketAddr, usize>,
    by_id: HashMap<SessionId, usize>,
    /// By packetizer id. Few entries, looked up per packet.
    pub(super) replicas: BTreeMap<u64, RingReplica>,
    /// Sessions that are not connected, or have not sent their first sender report.
    new_sessions: Vec<usize>,
    /// Index of the next tick in its round of [`TICKS_PER_ROUND`].
    tick_turn: usize,
    /// Sessions with more packets to send than one burst.
    backlog: Vec<usize>,
    rx_coalescing: RxCoalescing,
}

/// State shared by all workers.
#[derive(Debug, Clone)]
pub(crate) struct SharedContext {
    pub(crate) identity: Arc<Identity>,
    pub(crate) metrics: Metrics,
    pub(crate) events: EventBus,
    pub(crate) directory: Arc<SessionDirectory>,
    pub(crate) limits: Limits,
}

/// A worker's copy of the packet ring of a packetizer with viewers on this worker.
pub(super) struct RingReplica {
    packetizer: Arc<StreamPacketizer>,
    subscription: Arc<RingSubscription>,
    pub(super) ring: Ring,
    status: PacketizerStatus,
    /// Session slots that receive this track.
    viewers: Vec<usize>,
}

impl Worker {
    pub(crate) fn new(socket: Socket, mailbox: Arc<Mailbox>, liveness: Arc<Liveness>, context: SharedContext) -> Self {
        Self {
            socket,
            mailbox,
            liveness,
            context,
            sessions: Vec::new(),
            free_slots: Vec::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_id: HashMap::new(),
            replicas: BTreeMap::new(),
            new_sessions: Vec::new(),
            tick_turn: 0,
            backlog: Vec::new(),
            rx_coalescing: RxCoalescing::default(),
        }
    }

    /// Runs until [`Command::Stop`].
    pub(crate) fn run(mut self) {
        let _liveness_guard = self.liveness.start();
        let mut next_tick = Instant::now() + TICK_INTERVAL;
        let mut next_slice = Instant::now();
        loop {
            let until = if self.backlog.is_empty() { next_tick } else { next_tick.min(next_slice) };
            let readable = self.wait(until);
            let woken_at = Instant::now();
            let inbox = self.mailbox.take();
            for command in inbox.commands {
                match command {
                    Command::Join(new) => self.join(*new),
                    Command::Leave(id) => {
                        if let Some(&slot) = self.by_id.get(&id) {
                            self.close_with_bye(slot, "left");
                        }
                    }
                    Command::Revoke(id, reason) => {
                        if let Some(&slot) = self.by_id.get(&id) {
                            self.close_with_bye(slot, reason);
                        }
                    }
                    Command::Displace(id) => {
                        if let Some(&slot) = self.by_id.get(&id) {
                            self.close(slot, "displaced", false);
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
            for packetizer_id in inbox.updated_packetizers {
                self.on_ring_update(packetizer_id);
            }
            self.liveness.beat(now);
            if now >= next_slice && !self.backlog.is_empty() {
                self.send_slices();
                next_slice = now + SLICE_INTERVAL;
            }
            if now >= next_tick {
                self.on_tick(now);
                next_tick = now + TICK_INTERVAL;
            }
            self.socket.flush();
            self.context.metrics.unsent_packets.inc_by(std::mem::take(&mut self.socket.unsent_datagrams));
            self.context.metrics.bytes.inc_by(std::mem::take(&mut self.socket.sent_bytes));
            self.liveness.add_busy_time(woken_at.elapsed());
        }
    }

    /// Waits for a datagram, the mailbox or `until`. Returns true if datagrams may be available.
    fn wait(&mut self, until: Instant) -> bool {
        if !self.new_sessions.is_empty() {
            self.rx_coalescing.wake_now();
        }
        let now = Instant::now();
        let Some(resume) = self.rx_coalescing.paused_until(now) else {
            return self.socket.wait(until.saturating_duration_since(now));
        };
        self.socket.wait_without_reading(until.min(resume).saturating_duration_since(now));
        self.rx_coalescing.paused_until(Instant::now()).is_none()
    }

    fn stop(mut self) {
        for slot in 0..self.sessions.len() {
            self.close_with_bye(slot, "node shutdown");
        }
        self.socket.flush();
    }

    fn join(&mut self, new: NewSession) {
        // A session may be displaced before it is created.
        if !self.context.directory.contains(&new.id) {
            return;
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        let session = Box::new(Session::new(new, slot as u32, Instant::now()));
        self.by_ufrag.insert(session.ice.local_ufrag().to_owned(), slot);
        self.by_id.insert(session.id, slot);
        self.sessions[slot] = Some(session);
        self.new_sessions.push(slot);
        self.context.metrics.connecting_sessions.inc();
    }

    /// Closes a session and sends BYE and close_notify.
    pub(super) fn close_with_bye(&mut self, slot: usize, reason: &'static str) {
        self.close(slot, reason, true);
    }

    pub(super) fn close(&mut self, slot: usize, reason: &'static str, send_bye: bool) {
        let Some(mut session) = self.sessions.get_mut(slot).and_then(Option::take) else { return };
        let now = Instant::now();
        if send_bye {
            session.send_bye(now, &mut self.socket);
        }
        self.by_ufrag.remove(session.ice.local_ufrag());
        self.by_id.remove(&session.id);
        for address in session.ice.remote_addresses() {
            if self.by_address.get(&address) == Some(&slot) {
                self.by_address.remove(&address);
            }
        }
        for track in &session.send_state.tracks {
            self.remove_from_replica(track, slot);
        }
        self.backlog.retain(|&s| s != slot);
        self.new_sessions.retain(|&s| s != slot);
        self.free_slots.push(slot);
        self.context.directory.remove(&session.id);
        if session.has_joined {
            self.report_end(&session, now, reason);
        } else {
            self.context.metrics.connecting_sessions.dec();
            self.context.metrics.unconnected_sessions.inc();
            log::debug!(viewer = session.id.short().as_str(), reason; "viewer did not connect");
        }
    }

    fn report_end(&self, session: &Session, now: Instant, reason: &'static str) {
        self.context.metrics.sessions.dec();
        self.context.events.emit(Event::ViewerLeft {
            stream: session.stream.name().as_str().to_owned(),
            protocol: Protocol::Webrtc,
            peer: session.remote_address(),
            session: Some(session.id.short()),
            reason,
            packets: session.send_state.tracks.iter().map(|t| u64::from(t.packets)).sum(),
            bytes: session.send_state.tracks.iter().map(|t| u64::from(t.payload_bytes)).sum(),
            duration: now.saturating_duration_since(session.opened_at),
        });
    }

    fn receive(&mut self) {
        for n in 0..MAX_BATCHES {
            let batch = self.socket.receive();
            let now = Instant::now();
            for (pair, bytes) in batch.iter() {
                let slot = self.by_address.get(&pair.remote).copied();
                let handled = catch_unwind(AssertUnwindSafe(|| self.on_datagram(now, pair, bytes)));
                if handled.is_err() {
                    log::error!(peer:% = pair.remote; "datagram handler panicked, closing its session");
                    slot.into_iter().for_each(|slot| self.close(slot, "bug", false));
                }
            }
            let (is_empty, is_full) = (batch.is_empty(), batch.is_full());
            self.socket.recycle(batch);
            if is_full {
                continue;
            }
            if !is_empty {
                self.rx_coalescing.on_receive(now, self.by_id.len(), n > 0);
            }
            break;
        }
    }

    /// Makes a session whose handshake is complete a viewer, unless the node is full.
    pub(super) fn connect(&mut self, now: Instant, slot: usize, srtp: SrtpSession) {
        let Some(session) = self.sessions[slot].as_mut() else { return };
        if !self.context.directory.connect(&session.id) {
            self.close_with_bye(slot, "node full");
            return;
        }
        session.connect(now, srtp);
        session.has_joined = true;
        self.context.metrics.connecting_sessions.dec();
        self.context.metrics.sessions.inc();
        self.context.metrics.sessions_total.inc();
        self.start_tracks(slot);
    }

    /// Creates the tracks of a connected session and sends the first burst.
    fn start_tracks(&mut self, slot: usize) {
        let Some(session) = self.sessions[slot].as_mut() else { return };
        self.context.events.emit(Event::ViewerJoined {
            stream: session.stream.name().as_str().to_owned(),
            protocol: Protocol::Webrtc,
            peer: session.remote_address(),
            session: Some(session.id.short()),
            setup: Some(session.opened_at.elapsed()),
        });
        let batches_audio = session.packetizers.len() > 1;
        for (packetizer, payload_type) in std::mem::take(&mut session.packetizers) {
            let mailbox = &self.mailbox;
            let replica = self.replicas.entry(packetizer.id).or_insert_with(|| {
                let (subscription, ring, status) = packetizer.subscribe(mailbox.ring_updates());
                RingReplica { packetizer: Arc::clone(&packetizer), subscription, ring, status, viewers: Vec::new() }
            });
            replica.viewers.push(slot);
            packetizer.add_viewer(batches_audio);
            if packetizer.kind == MediaKind::Video && !replica.ring.has_start_frame() {
                packetizer.stream.request_key_frame();
            }
            session.send_state.tracks.push(SendTrack::new(
                &packetizer,
                &replica.ring,
                payload_type,
                rand::random(),
                batches_audio,
            ));
        }
        self.send_new(&[slot], None);
        self.socket.flush();
        let ended = |s: &Session| {
            s.send_state.tracks.first().and_then(|t| self.replicas.get(&t.packetizer_id)).and_then(|r| r.status.ended)
        };
        if self.sessions[slot].as_deref().and_then(ended).is_some() {
            self.close_with_bye(slot, "stream ended");
        }
    }

    fn remove_from_replica(&mut self, track: &SendTrack, slot: usize) {
        if let Some(replica) = self.replicas.get_mut(&track.packetizer_id) {
            replica.viewers.retain(|&s| s != slot);
            replica.packetizer.remove_viewer(track.batches_audio);
            if replica.viewers.is_empty() {
                replica.packetizer.unsubscribe(&replica.subscription);
                self.replicas.remove(&track.packetizer_id);
            }
        }
    }

    fn on_ring_update(&mut self, packetizer_id: u64) {
        let Some(replica) = self.replicas.get_mut(&packetizer_id) else { return };
        replica.sync();
        let ended = replica.status.ended;
        if replica.packetizer.kind == MediaKind::Video {
            let audio = replica.packetizer.audio();
            if let Some(audio) = audio.and_then(|audio| self.replicas.get_mut(&audio.id)) {
                audio.sync();
            }
            self.send_to_viewers(packetizer_id, None);
        } else {
            self.send_to_viewers(packetizer_id, Some(packetizer_id));
        }
        if let Some(end) = ended {
            self.on_packetizer_end(packetizer_id, end);
        }
    }

    /// Sends new packets to all viewers of a packetizer.
    fn send_to_viewers(&mut self, packetizer_id: u64, only: Option<u64>) {
        let Some(replica) = self.replicas.get_mut(&packetizer_id) else { return };
        let viewers = std::mem::take(&mut replica.viewers);
        self.send_new(&viewers, only);
        if let Some(replica) = self.replicas.get_mut(&packetizer_id) {
            replica.viewers = viewers;
        }
    }

    /// Closes the sessions whose video or whose stream has ended. A session that loses only its
    /// audio continues with video.
    fn on_packetizer_end(&mut self, packetizer_id: u64, end: PacketizerEnd) {
        let Some(replica) = self.replicas.get(&packetizer_id) else { return };
        let is_video = replica.packetizer.kind == MediaKind::Video;
        for slot in replica.viewers.clone() {
            let Some(session) = self.sessions[slot].as_mut() else { continue };
            if is_video || session.send_state.tracks.len() == 1 || session.stream.is_ended() {
                let reason = match end {
                    PacketizerEnd::StreamEnded => "stream ended",
                    PacketizerEnd::BFrames => "b-frames",
                    PacketizerEnd::CodecChanged => "codec changed",
                };
                self.close_with_bye(slot, reason);
            } else {
                let removed = session
                    .send_state
                    .tracks
                    .iter()
                    .position(|t| t.packetizer_id == packetizer_id)
                    .map(|n| session.send_state.tracks.remove(n));
                if let Some(track) = removed {
                    self.remove_from_replica(&track, slot);
                }
            }
        }
    }

    /// Sends the next slice to the sessions in the backlog.
    fn send_slices(&mut self) {
        let backlog = std::mem::take(&mut self.backlog);
        for &slot in &backlog {
            if let Some(session) = &mut self.sessions[slot] {
                session.has_backlog = false;
            }
        }
        self.send_new(&backlog, None);
    }

    /// Sends new packets of all tracks, or of one, to each viewer, at most one burst: video first.
    pub(super) fn send_new(&mut self, viewers: &[usize], only: Option<u64>) {
        let mut packets = 0;
        for (n, &slot) in viewers.iter().enumerate() {
            if let Some(later) = viewers.get(n + PREFETCH_DISTANCE).and_then(|&later| self.sessions[later].as_deref()) {
                prefetch(&later.send_state);
            }
            let Some(session) = self.sessions[slot].as_deref_mut() else { continue };
            let Some((tracks, mut sink)) = session.send_state.split_for_sending(&mut self.socket) else { continue };
            let mut budget = BURST_PACKETS;
            let mut more = false;
            for track in tracks.iter_mut().filter(|track| only.is_none_or(|only| track.packetizer_id == only)) {
                if let Some(replica) = self.replicas.get(&track.packetizer_id) {
                    more |= track.send_new(&replica.ring, &mut sink, &mut budget);
                }
            }
            packets += u64::from(BURST_PACKETS - budget);
            if more && !session.has_backlog {
                session.has_backlog = true;
                self.backlog.push(slot);
            }
        }
        self.context.metrics.packets.inc_by(packets);
    }

    /// Checks the new sessions and one tenth of the connected ones.
    fn on_tick(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.new_sessions) {
            if !self.check_session(slot, now) {
                self.new_sessions.push(slot);
            }
        }
        for slot in (self.tick_turn..self.sessions.len()).step_by(TICKS_PER_ROUND) {
            if self.sessions[slot].as_deref().is_some_and(Session::is_connected) {
                self.check_session(slot, now);
            }
        }
        self.tick_turn = (self.tick_turn + 1) % TICKS_PER_ROUND;
    }

    /// Closes an expired session, advances the handshake or sends reports. Returns false if the
    /// handshake is still in progress.
    fn check_session(&mut self, slot: usize, now: Instant) -> bool {
        let Some(session) = self.sessions[slot].as_deref_mut() else { return true };
        let crypto = self.context.identity.provider.crypto();
        if let Err(reason) = session.on_timeout(now, &self.context.limits, &mut self.socket, crypto) {
            self.close_with_bye(slot, reason);
            return true;
        }
        let replicas = &self.replicas;
        let media_clock =
            session.send_state.tracks.iter().find_map(|t| replicas.get(&t.packetizer_id)?.status.media_clock);
        if let Some(media_clock) = media_clock {
            session.send_sender_reports(now, media_clock, &mut self.socket, |id| {
                replicas.get(&id).map(|r| (r.packetizer.timestamp_offset, r.packetizer.clock_hz))
            });
        }
        session.is_connected()
    }
}

impl RingReplica {
    fn sync(&mut self) {
        self.subscription.acknowledge();
        self.status = self.packetizer.sync_ring(&mut self.ring);
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
