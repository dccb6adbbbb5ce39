//! One viewer session: ICE-lite, DTLS, SRTP and the send state of its tracks. Owned and driven
//! by one worker.
//!
//! ```text
//!   waiting --authenticated STUN--> checked --DTLS, certificate matches--> connected
//!   connected --DELETE, BYE, consent timeout, end of stream--> closed
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use headwater_wire::webrtc::{BindingRequest, Credentials, Fingerprint, SenderReport, StunError, goodbye};
use rtc_crypto::RTCCrypto;

use crate::gateway::webrtc::play::packetizer::{MediaClock, StreamPacketizer};
use crate::gateway::webrtc::play::rtx_limiter::RtxLimiter;
use crate::gateway::webrtc::play::send_track::ViewerSendState;
use crate::gateway::webrtc::signalling::SessionId;
use crate::gateway::webrtc::transport::dtls::{Dtls, Identity, DtlsEvent};
use crate::gateway::webrtc::transport::srtp::{RtcpCipher, SrtpSession};
use crate::gateway::webrtc::transport::udp::{AddressPair, Socket};
use crate::hub::{Stream, ViewerGuard};

/// Maximum number of remote addresses per viewer: its interfaces and their NAT mappings.
const MAX_REMOTE_ADDRESSES: usize = 16;
/// Number of STUN transactions remembered, so that a request replayed from another address is not
/// mistaken for a move of the viewer.
const MAX_TRANSACTIONS: usize = 64;
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
    pub(crate) credentials: Credentials,
    remote_ufrag: String,
    /// Remote addresses with an authenticated STUN check, most recent last.
    pub(crate) remote_addresses: Vec<SocketAddr>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    /// The selected address pair, the media cipher and the tracks.
    pub(crate) send_state: ViewerSendState,
    /// The selected pair as received, and when the kernel was last queried for its source address.
    queried_pair: Option<(AddressPair, Instant)>,
    /// Time of the last STUN check from the selected remote address.
    pair_confirmed_at: Instant,
    /// Time of the last STUN check from any remote address.
    last_check_at: Instant,
    dtls: Dtls,
    rtcp: Option<Box<RtcpCipher>>,
    /// Packetizers of the session until it is connected; the worker then creates their tracks.
    pub(crate) packetizers: Vec<(Arc<StreamPacketizer>, u8)>,
    pub(crate) opened_at: Instant,
    /// True while the session is in the worker's backlog: it has more to send than one burst.
    pub(crate) has_backlog: bool,
    pub(crate) rtx_limiter: RtxLimiter,
    pub(crate) key_frame_requested_at: Option<Instant>,
    _viewer_guard: ViewerGuard,
}

/// The outcome of an authenticated STUN check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// Answered; the remote address is authenticated.
    Valid {
        /// Address removed because the limit per viewer is reached.
        evicted: Option<SocketAddr>,
    },
    /// A retransmission of an earlier check; answered again.
    Repeated,
    /// A copy of an earlier check from another address; not answered.
    Replayed,
}

impl Session {
    pub(crate) fn new(new: NewSession, now: Instant) -> Self {
        Self {
            id: new.id,
            stream: new.stream,
            credentials: new.credentials,
            remote_ufrag: new.remote_ufrag,
            remote_addresses: Vec::new(),
            transactions: Vec::new(),
            send_state: ViewerSendState::default(),
            queried_pair: None,
            pair_confirmed_at: now,
            last_check_at: now,
            dtls: Dtls::new(new.fingerprint),
            rtcp: None,
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
        self.rtcp.is_some()
    }

    /// Answers a connectivity check (RFC 8445 §7.3) and updates the selected pair.
    pub(crate) fn on_check(
        &mut self,
        now: Instant,
        request: &mut BindingRequest,
        from: &AddressPair,
        socket: &mut Socket,
        crypto: &dyn RTCCrypto,
    ) -> Result<CheckOutcome, StunError> {
        request.verify(&self.credentials, &self.remote_ufrag, crypto)?;
        let transaction = request.transaction();
        let seen = self.transactions.iter().find(|(seen, _)| *seen == transaction).map(|(_, first)| *first);
        if seen.is_some_and(|first| first != from.remote) {
            return Ok(CheckOutcome::Replayed);
        }
        if let Some(response) = request.response(from.remote, &self.credentials, crypto) {
            socket.queue_datagram(from, &response);
        }
        if seen.is_some() {
            // A retransmission because the response was lost, or a replayed recording:
            // neither refreshes consent.
            return Ok(CheckOutcome::Repeated);
        }
        if self.transactions.len() == MAX_TRANSACTIONS {
            self.transactions.remove(0);
        }
        self.transactions.push((transaction, from.remote));
        self.last_check_at = now;
        let expired = now.saturating_duration_since(self.pair_confirmed_at) > PAIR_TIMEOUT;
        let is_current = self.queried_pair.is_none_or(|(pair, _)| pair == *from);
        if is_current || request.use_candidate || expired {
            self.select_pair(now, from);
        }
        if self.send_state.selected_pair.is_some_and(|pair| pair.remote == from.remote) {
            self.pair_confirmed_at = now;
        }
        let evicted = self.remember_address(from.remote);
        Ok(CheckOutcome::Valid { evicted })
    }

    /// Selects the pair to send to. Queries the kernel for its source address if the pair is new
    /// and every [`ROUTE_QUERY_INTERVAL`], because routes change.
    fn select_pair(&mut self, now: Instant, pair: &AddressPair) {
        let is_fresh = |(queried, at)| queried == *pair && now.saturating_duration_since(at) < ROUTE_QUERY_INTERVAL;
        if !self.queried_pair.is_some_and(is_fresh) {
            self.queried_pair = Some((*pair, now));
            self.send_state.selected_pair = Some(pair.without_default_source());
        }
    }

    /// Adds a remote address as the most recent one. Returns the address removed to stay within
    /// [`MAX_REMOTE_ADDRESSES`], if any.
    fn remember_address(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        self.remote_addresses.retain(|known| *known != address);
        let evicted = (self.remote_addresses.len() == MAX_REMOTE_ADDRESSES).then(|| self.remote_addresses.remove(0));
        self.remote_addresses.push(address);
        evicted
    }

    /// Processes a DTLS datagram and sends the responses, except if the certificate does not
    /// match the offer.
    pub(crate) fn on_dtls(
        &mut self,
        now: Instant,
        datagram: &[u8],
        socket: &mut Socket,
        identity: &Identity,
    ) -> Result<DtlsEvent, rtc_shared::error::Error> {
        let result = self.dtls.on_datagram(now, datagram, identity);
        if !matches!(result, Ok(DtlsEvent::WrongCertificate)) {
            self.send_dtls(socket);
        }
        result
    }

    /// Stores the ciphers of the completed handshake. The worker then adds the tracks.
    pub(crate) fn connect(&mut self, srtp: SrtpSession) {
        self.send_state.cipher = Some(srtp.media_cipher);
        self.rtcp = Some(srtp.rtcp_cipher);
    }

    /// Decrypts an RTCP packet. Returns `None` before the handshake is complete or if the packet
    /// is not authentic.
    pub(crate) fn decrypt_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.rtcp.as_mut()?.open(packet).ok()
    }

    /// Runs the timers; called on every tick. Returns false if the session must end: there was no
    /// valid check for `consent_timeout` (RFC 7675 §5.1), or the handshake failed.
    pub(crate) fn on_timeout(&mut self, now: Instant, consent_timeout: Duration, socket: &mut Socket) -> bool {
        if now.saturating_duration_since(self.last_check_at) > consent_timeout {
            return false;
        }
        if self.rtcp.is_none() {
            if self.dtls.on_timeout(now).is_err() {
                return false;
            }
            self.send_dtls(socket);
        }
        true
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
        let (Some(rtcp), Some(pair)) = (&mut self.rtcp, &self.send_state.selected_pair) else { return };
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
        if let Ok(sealed) = rtcp.seal(&compound) {
            socket.queue_datagram(pair, &sealed);
        }
    }

    /// Sends an RTCP BYE for each track, then a DTLS close_notify.
    pub(crate) fn send_bye(&mut self, now: Instant, socket: &mut Socket) {
        if let (Some(rtcp), Some(pair)) = (&mut self.rtcp, &self.send_state.selected_pair) {
            for track in &self.send_state.tracks {
                if let Ok(sealed) = rtcp.seal(&goodbye(track.ssrc)) {
                    socket.queue_datagram(pair, &sealed);
                }
            }
        }
        self.dtls.close(now);
        self.send_dtls(socket);
    }

    fn send_dtls(&mut self, socket: &mut Socket) {
        while let Some(datagram) = self.dtls.poll_transmit() {
            if let Some(pair) = &self.send_state.selected_pair {
                socket.queue_datagram(pair, &datagram);
            }
        }
    }
}

/// Interval between queries for the kernel's source address towards a viewer.
const ROUTE_QUERY_INTERVAL: Duration = Duration::from_secs(30);
/// A selected pair without a check for this duration is replaced by any other pair with one.
const PAIR_TIMEOUT: Duration = Duration::from_secs(6);
