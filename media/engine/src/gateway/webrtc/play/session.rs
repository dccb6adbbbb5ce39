//! One viewer session: its transport and the send state of its tracks. Owned and driven by one
//! worker.
//!
//! ```text
//!   waiting --authenticated STUN--> checked --DTLS, certificate matches--> connected
//!   waiting, checked --timeout, displaced by newer sessions--> closed
//!   connected --no answer for 6 s--> paused --answer--> connected
//!   connected --DELETE, BYE, no answer for 30 s, end of stream--> closed
//! ```
//!
//! Datagrams of the viewer go in, responses and sender reports are queued at the socket. Must not
//! know the worker or other sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use headwater_wire::webrtc::{Credentials, Fingerprint, SenderReport, goodbye};
use rtc_crypto::RTCCrypto;

use crate::gateway::webrtc::limits::Limits;
use crate::gateway::webrtc::play::packetizer::{MediaClock, StreamPacketizer};
use crate::gateway::webrtc::play::rtx_limiter::RtxLimiter;
use crate::gateway::webrtc::play::send_track::ViewerSendState;
use crate::gateway::webrtc::transport::dtls::{DtlsEvent, Identity};
use crate::gateway::webrtc::transport::dtls_srtp::DtlsSrtp;
use crate::gateway::webrtc::transport::ice::IceAgent;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::gateway::webrtc::transport::srtp::SrtpSession;
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};
use crate::hub::{Stream, ViewerGuard, ViewerKind};

/// Seconds between 1900 and 1970 (RFC 3550 §4).
const NTP_TO_UNIX_S: u64 = 2_208_988_800;
/// The canonical name that both tracks share (RFC 3550 §6.5.1).
pub(crate) const CNAME: &str = "headwater";

/// The parameters of a session, from signalling to a worker.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) stream: Arc<Stream>,
    /// The ICE credentials of the node.
    pub(crate) local: Credentials,
    /// The ICE credentials of the viewer.
    pub(crate) remote: Credentials,
    pub(crate) fingerprint: Fingerprint,
    /// Packetizers and the payload types that the viewer's offer assigns to them; video first.
    pub(crate) packetizers: Vec<(Arc<StreamPacketizer>, u8)>,
}

/// The session of one viewer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) stream: Arc<Stream>,
    pub(crate) ice: IceAgent,
    dtls_srtp: DtlsSrtp,
    /// The address pair for media, the media cipher and the tracks.
    pub(crate) send_state: ViewerSendState,
    /// Packetizers of the session until it is connected; the worker then creates their tracks.
    pub(crate) packetizers: Vec<(Arc<StreamPacketizer>, u8)>,
    pub(crate) opened_at: Instant,
    /// True while the session is in the worker's backlog: it has more to send than one burst.
    pub(crate) has_backlog: bool,
    pub(crate) rtx_limiter: RtxLimiter,
    pub(crate) key_frame_requested_at: Option<Instant>,
    /// True once the worker has reported the session as a viewer.
    pub(crate) has_joined: bool,
    /// Set once the session is connected: only then it counts as a viewer.
    viewer_guard: Option<ViewerGuard>,
}

impl Session {
    /// Creates a session that waits for its viewer. `tag` identifies it in the node's own checks.
    pub(crate) fn new(new: NewSession, tag: u32, now: Instant) -> Self {
        Self {
            id: new.id,
            stream: new.stream,
            ice: IceAgent::new(new.local, new.remote, tag, now),
            dtls_srtp: DtlsSrtp::new(new.fingerprint),
            send_state: ViewerSendState::default(),
            packetizers: new.packetizers,
            opened_at: now,
            has_backlog: false,
            rtx_limiter: RtxLimiter::new(now),
            key_frame_requested_at: None,
            has_joined: false,
            viewer_guard: None,
        }
    }

    /// Returns the remote address of the selected pair or, before one is selected, of the newest
    /// check.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.ice.remote_address()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.dtls_srtp.is_connected()
    }

    /// Lets the ICE agent process a check or an answer, and then updates the pair that media is
    /// sent to.
    pub(crate) fn with_ice<R>(&mut self, now: Instant, process: impl FnOnce(&mut IceAgent) -> R) -> R {
        let result = process(&mut self.ice);
        self.update_media_pair(now);
        result
    }

    /// Processes a DTLS datagram and sends the responses to where it came from, except if the
    /// certificate does not match the offer.
    ///
    /// # Errors
    /// Fails for a datagram that violates the protocol. The session continues.
    pub(crate) fn on_dtls(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: &AddressPair,
        socket: &mut Socket,
        identity: &Identity,
    ) -> Result<DtlsEvent, rtc_shared::error::Error> {
        self.ice.on_received(from.remote, datagram.len());
        let Self { ice, dtls_srtp, .. } = self;
        dtls_srtp.on_datagram(now, datagram, from, identity, |pair, bytes| ice.send(pair, bytes, socket))
    }

    /// Stores the ciphers of the completed handshake, and counts the session as a viewer. The
    /// worker then adds the tracks.
    pub(crate) fn connect(&mut self, now: Instant, srtp: SrtpSession) {
        self.send_state.cipher = Some(self.dtls_srtp.connect(srtp));
        self.viewer_guard = Some(self.stream.count_viewer(ViewerKind::Webrtc));
        if let Some(address) = self.dtls_srtp.handshake_address() {
            self.ice.prove(now, address);
        }
        self.update_media_pair(now);
    }

    fn update_media_pair(&mut self, now: Instant) {
        self.send_state.selected_pair = self.ice.media_pair(now);
    }

    /// Decrypts an RTCP packet. Returns `None` before the handshake is complete or if the packet
    /// is not authentic.
    pub(crate) fn decrypt_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.dtls_srtp.decrypt_rtcp(packet)
    }

    /// Runs the timers; called on every tick. Checks the address of the viewer, and pauses media if
    /// it no longer answers.
    ///
    /// # Errors
    /// Returns the reason if the session must end.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        limits: &Limits,
        socket: &mut Socket,
        crypto: &dyn RTCCrypto,
    ) -> Result<(), &'static str> {
        let age = now.saturating_duration_since(self.opened_at);
        if self.is_connected() {
            if self.ice.is_expired(now, limits.consent_timeout) {
                return Err("expired");
            }
        } else if age > limits.handshake_timeout || (!self.ice.has_peer() && age > limits.first_check_timeout) {
            return Err("never connected");
        }
        self.ice.on_timeout(now, socket, crypto);
        self.update_media_pair(now);
        let Self { ice, dtls_srtp, .. } = self;
        dtls_srtp.on_timeout(now, |pair, bytes| ice.send(pair, bytes, socket)).map_err(|_| "never connected")
    }

    /// Sends sender reports (RFC 3550 §6.4.1) with the same media clock for both tracks, so that
    /// the player synchronizes audio and video. `clock_of` returns the timestamp offset and the
    /// clock rate of a packetizer.
    pub(crate) fn send_sender_reports(
        &mut self,
        now: Instant,
        media_clock: MediaClock,
        socket: &mut Socket,
        clock_of: impl Fn(u64) -> Option<(u32, u32)>,
    ) {
        if !self.is_connected() {
            return;
        }
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = (wall.as_secs().wrapping_add(NTP_TO_UNIX_S) << 32) | fraction;
        let media = media_clock.time_at(now);
        // One compound packet for both tracks (RFC 3550 §6.1).
        let mut compound = BytesMut::new();
        for track in self.send_state.tracks.iter().filter(|t| t.packets > 0) {
            let Some((offset, clock_hz)) = clock_of(track.packetizer_id) else { continue };
            let report = SenderReport {
                ssrc: track.ssrc,
                ntp,
                rtp_timestamp: media.to_rtp(clock_hz).wrapping_add(offset),
                packets: track.packets,
                payload_bytes: track.payload_bytes,
            };
            compound.extend_from_slice(&report.encode(CNAME));
        }
        if compound.is_empty() {
            return;
        }
        self.dtls_srtp.send_rtcp(&compound, self.send_state.selected_pair.as_ref(), socket);
    }

    /// Sends an RTCP BYE for each track, then a DTLS close_notify.
    pub(crate) fn send_bye(&mut self, now: Instant, socket: &mut Socket) {
        let pair = self.send_state.selected_pair;
        for track in &self.send_state.tracks {
            self.dtls_srtp.send_rtcp(&goodbye(track.ssrc), pair.as_ref(), socket);
        }
        let Self { ice, dtls_srtp, .. } = self;
        dtls_srtp.close(now, pair, |pair, bytes| ice.send(pair, bytes, socket));
    }
}
