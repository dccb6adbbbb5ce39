//! One viewer session: its transport and the send state of its tracks. Owned and driven by one
//! worker.
//!
//! ```text
//!   waiting --authenticated STUN--> checked --DTLS, certificate matches--> connected
//!   connected --DELETE, BYE, consent timeout, end of stream--> closed
//! ```
//!
//! Datagrams of the viewer go in, responses and sender reports are queued at the socket. Must not
//! know the worker or other sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use headwater_wire::webrtc::{Credentials, Fingerprint, SenderReport, goodbye};

use crate::gateway::webrtc::play::packetizer::{MediaClock, StreamPacketizer};
use crate::gateway::webrtc::play::rtx_limiter::RtxLimiter;
use crate::gateway::webrtc::play::send_track::ViewerSendState;
use crate::gateway::webrtc::transport::dtls::{DtlsEvent, Identity};
use crate::gateway::webrtc::transport::dtls_srtp::DtlsSrtp;
use crate::gateway::webrtc::transport::ice::IceAgent;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::gateway::webrtc::transport::srtp::SrtpSession;
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};
use crate::hub::{Stream, ViewerGuard};

/// Seconds between 1900 and 1970 (RFC 3550 §4).
const NTP_TO_UNIX_S: u64 = 2_208_988_800;
/// The canonical name that both tracks share (RFC 3550 §6.5.1).
pub(crate) const CNAME: &str = "headwater";

/// The parameters of a session, from signalling to a worker.
#[derive(Debug)]
pub(crate) struct NewSession {
    pub(crate) id: SessionId,
    pub(crate) stream: Arc<Stream>,
    pub(crate) credentials: Credentials,
    pub(crate) remote_ufrag: String,
    pub(crate) fingerprint: Fingerprint,
    /// Packetizers and the payload types that the viewer's offer assigns to them; video first.
    pub(crate) packetizers: Vec<(Arc<StreamPacketizer>, u8)>,
    pub(crate) viewer_guard: ViewerGuard,
}

/// The session of one viewer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) stream: Arc<Stream>,
    pub(crate) ice: IceAgent,
    dtls_srtp: DtlsSrtp,
    /// The selected address pair, the media cipher and the tracks.
    pub(crate) send_state: ViewerSendState,
    /// Packetizers of the session until it is connected; the worker then creates their tracks.
    pub(crate) packetizers: Vec<(Arc<StreamPacketizer>, u8)>,
    pub(crate) opened_at: Instant,
    /// True while the session is in the worker's backlog: it has more to send than one burst.
    pub(crate) has_backlog: bool,
    pub(crate) rtx_limiter: RtxLimiter,
    pub(crate) key_frame_requested_at: Option<Instant>,
    _viewer_guard: ViewerGuard,
}

impl Session {
    pub(crate) fn new(new: NewSession, now: Instant) -> Self {
        Self {
            id: new.id,
            stream: new.stream,
            ice: IceAgent::new(new.credentials, new.remote_ufrag, now),
            dtls_srtp: DtlsSrtp::new(new.fingerprint),
            send_state: ViewerSendState::default(),
            packetizers: new.packetizers,
            opened_at: now,
            has_backlog: false,
            rtx_limiter: RtxLimiter::new(now),
            key_frame_requested_at: None,
            _viewer_guard: new.viewer_guard,
        }
    }

    /// Returns the remote address of the selected pair, if there is one yet.
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.send_state.selected_pair.map(|pair| pair.remote)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.dtls_srtp.is_connected()
    }

    /// Sets the pair that packets are sent to from now on.
    pub(crate) fn select_pair(&mut self, pair: AddressPair) {
        self.send_state.selected_pair = Some(pair);
    }

    /// Processes a DTLS datagram and sends the responses, except if the certificate does not
    /// match the offer.
    ///
    /// # Errors
    /// Fails for a datagram that violates the protocol. The session continues.
    pub(crate) fn on_dtls(
        &mut self,
        now: Instant,
        datagram: &[u8],
        socket: &mut Socket,
        identity: &Identity,
    ) -> Result<DtlsEvent, rtc_shared::error::Error> {
        self.dtls_srtp.on_datagram(now, datagram, identity, self.send_state.selected_pair.as_ref(), socket)
    }

    /// Stores the ciphers of the completed handshake. The worker then adds the tracks.
    pub(crate) fn connect(&mut self, srtp: SrtpSession) {
        self.send_state.cipher = Some(self.dtls_srtp.connect(srtp));
    }

    /// Decrypts an RTCP packet. Returns `None` before the handshake is complete or if the packet
    /// is not authentic.
    pub(crate) fn decrypt_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.dtls_srtp.decrypt_rtcp(packet)
    }

    /// Runs the timers; called on every tick. Returns false if the session must end: there was no
    /// valid check for `consent_timeout` (RFC 7675 §5.1), or the handshake failed.
    pub(crate) fn on_timeout(&mut self, now: Instant, consent_timeout: Duration, socket: &mut Socket) -> bool {
        !self.ice.is_expired(now, consent_timeout)
            && self.dtls_srtp.on_timeout(now, self.send_state.selected_pair.as_ref(), socket).is_ok()
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
        let pair = self.send_state.selected_pair.as_ref();
        for track in &self.send_state.tracks {
            self.dtls_srtp.send_rtcp(&goodbye(track.ssrc), pair, socket);
        }
        self.dtls_srtp.close(now, pair, socket);
    }
}
