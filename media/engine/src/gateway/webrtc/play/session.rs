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

use crate::gateway::webrtc::play::packetizer::{Anchor, Feed};
use crate::gateway::webrtc::play::rtx_limiter::Resends;
use crate::gateway::webrtc::play::send_track::Outlet;
use crate::gateway::webrtc::signalling::SessionId;
use crate::gateway::webrtc::transport::dtls::{Dtls, Identity, Progress};
use crate::gateway::webrtc::transport::srtp::{Rtcp, Srtp};
use crate::gateway::webrtc::transport::udp::{Path, Socket};
use crate::hub::{Stream, ViewerGuard};

/// Maximum number of remote addresses per viewer: its interfaces and their NAT mappings.
const MAX_ADDRESSES: usize = 16;
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
    pub(crate) feeds: Vec<(Arc<Feed>, u8)>,
    pub(crate) guard: ViewerGuard,
}

/// The session of one viewer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) stream: Arc<Stream>,
    pub(crate) credentials: Credentials,
    remote_ufrag: String,
    /// Remote addresses with an authenticated STUN check, most recent last.
    pub(crate) addresses: Vec<SocketAddr>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    /// The selected address pair, the media cipher and the tracks.
    pub(crate) outlet: Outlet,
    /// The selected pair as received, and when the kernel was last queried for its source address.
    way: Option<(Path, Instant)>,
    /// Time of the last STUN check from the selected remote address.
    path_at: Instant,
    last_valid: Instant,
    dtls: Dtls,
    rtcp: Option<Box<Rtcp>>,
    /// Packetizers of the session until it is connected; the worker then creates their tracks.
    pub(crate) feeds: Vec<(Arc<Feed>, u8)>,
    pub(crate) opened: Instant,
    /// True while the session is in the worker's backlog: it has more to send than one burst.
    pub(crate) behind: bool,
    pub(crate) resends: Resends,
    pub(crate) key_frame_asked: Option<Instant>,
    _guard: ViewerGuard,
}

/// The outcome of an authenticated STUN check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Answered; the remote address is authenticated.
    Valid {
        /// Address removed because the limit per viewer is reached.
        forgotten: Option<SocketAddr>,
    },
    /// A retransmission of an earlier check; answered again.
    Answered,
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
            addresses: Vec::new(),
            transactions: Vec::new(),
            outlet: Outlet::default(),
            way: None,
            path_at: now,
            last_valid: now,
            dtls: Dtls::new(new.fingerprint),
            rtcp: None,
            feeds: new.feeds,
            opened: now,
            behind: false,
            resends: Resends::new(now),
            key_frame_asked: None,
            _guard: new.guard,
        }
    }

    /// Returns the remote address of the selected pair, if there is one yet.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.outlet.path.map(|p| p.peer)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.rtcp.is_some()
    }

    /// Answers a connectivity check (RFC 8445 §7.3) and updates the selected pair.
    pub(crate) fn on_check(
        &mut self,
        now: Instant,
        request: &mut BindingRequest,
        from: &Path,
        socket: &mut Socket,
        crypto: &dyn RTCCrypto,
    ) -> Result<Checked, StunError> {
        request.verify(&self.credentials, &self.remote_ufrag, crypto)?;
        let transaction = request.transaction();
        let seen = self.transactions.iter().find(|(seen, _)| *seen == transaction).map(|(_, first)| *first);
        if seen.is_some_and(|first| first != from.peer) {
            return Ok(Checked::Replayed);
        }
        if let Some(response) = request.response(from.peer, &self.credentials, crypto) {
            socket.send(from, &response);
        }
        if seen.is_some() {
            // A retransmission because the response was lost, or a replayed recording:
            // neither refreshes consent.
            return Ok(Checked::Answered);
        }
        if self.transactions.len() == MAX_TRANSACTIONS {
            self.transactions.remove(0);
        }
        self.transactions.push((transaction, from.peer));
        self.last_valid = now;
        let silent = now.saturating_duration_since(self.path_at) > PATH_SILENCE;
        let same = self.way.is_none_or(|(way, _)| way == *from);
        if same || request.use_candidate || silent {
            self.follow(now, from);
        }
        if self.outlet.path.is_some_and(|path| path.peer == from.peer) {
            self.path_at = now;
        }
        let forgotten = self.remember(from.peer);
        Ok(Checked::Valid { forgotten })
    }

    /// Selects the pair to send to. Queries the kernel for its source address if the pair is new
    /// and every [`ROUTE_QUERY_INTERVAL`], because routes change.
    fn follow(&mut self, now: Instant, path: &Path) {
        let asked = |(way, at)| way == *path && now.saturating_duration_since(at) < ROUTES_LAST;
        if !self.way.is_some_and(asked) {
            self.way = Some((*path, now));
            self.outlet.path = Some(path.shortened());
        }
    }

    /// Adds a remote address as the most recent one. Returns the address removed to stay within
    /// [`MAX_REMOTE_ADDRESSES`], if any.
    fn remember(&mut self, peer: SocketAddr) -> Option<SocketAddr> {
        self.addresses.retain(|known| *known != peer);
        let forgotten = (self.addresses.len() == MAX_ADDRESSES).then(|| self.addresses.remove(0));
        self.addresses.push(peer);
        forgotten
    }

    /// Processes a DTLS datagram and sends the responses, except if the certificate does not
    /// match the offer.
    pub(crate) fn on_dtls(
        &mut self,
        now: Instant,
        datagram: &[u8],
        socket: &mut Socket,
        identity: &Identity,
    ) -> Result<Progress, rtc_shared::error::Error> {
        let result = self.dtls.read(now, datagram, identity);
        if !matches!(result, Ok(Progress::WrongCertificate)) {
            self.send_dtls(socket);
        }
        result
    }

    /// Stores the ciphers of the completed handshake. The worker then adds the tracks.
    pub(crate) fn connect(&mut self, srtp: Srtp) {
        self.outlet.media = Some(srtp.media);
        self.rtcp = Some(srtp.rtcp);
    }

    /// Decrypts an RTCP packet. Returns `None` before the handshake is complete or if the packet
    /// is not authentic.
    pub(crate) fn open_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.rtcp.as_mut()?.open(packet).ok()
    }

    /// Runs the timers; called on every tick. Returns false if the session must end: there was no
    /// valid check for `consent_timeout` (RFC 7675 §5.1), or the handshake failed.
    pub(crate) fn on_time(&mut self, now: Instant, consent: Duration, socket: &mut Socket) -> bool {
        if now.saturating_duration_since(self.last_valid) > consent {
            return false;
        }
        if self.rtcp.is_none() {
            if self.dtls.on_time(now).is_err() {
                return false;
            }
            self.send_dtls(socket);
        }
        true
    }

    /// Sends sender reports (RFC 3550 §6.4.1) with the same media clock for both tracks, so that
    /// the player synchronizes audio and video. `clock_of` returns the timestamp offset and the
    /// clock rate of a packetizer.
    pub(crate) fn send_reports(
        &mut self,
        now: Instant,
        anchor: Anchor,
        socket: &mut Socket,
        clock_of: impl Fn(u64) -> Option<(u32, u32)>,
    ) {
        let (Some(rtcp), Some(path)) = (&mut self.rtcp, &self.outlet.path) else { return };
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = (wall.as_secs().wrapping_add(NTP_TO_UNIX_S) << 32) | fraction;
        let media = anchor.time_at(now);
        // One compound packet for both tracks (RFC 3550 §6.1).
        let mut compound = BytesMut::new();
        for track in self.outlet.tracks.iter().filter(|t| t.packets > 0) {
            let Some((offset, clock_hz)) = clock_of(track.feed) else { continue };
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
            socket.send(path, &sealed);
        }
    }

    /// Sends an RTCP BYE for each track, then a DTLS close_notify.
    pub(crate) fn say_goodbye(&mut self, now: Instant, socket: &mut Socket) {
        if let (Some(rtcp), Some(path)) = (&mut self.rtcp, &self.outlet.path) {
            for track in &self.outlet.tracks {
                if let Ok(sealed) = rtcp.seal(&goodbye(track.ssrc)) {
                    socket.send(path, &sealed);
                }
            }
        }
        self.dtls.close(now);
        self.send_dtls(socket);
    }

    fn send_dtls(&mut self, socket: &mut Socket) {
        while let Some(datagram) = self.dtls.poll() {
            if let Some(path) = &self.outlet.path {
                socket.send(path, &datagram);
            }
        }
    }
}

/// Interval between queries for the kernel's source address towards a viewer.
const ROUTES_LAST: Duration = Duration::from_secs(30);
/// A selected pair without a check for this duration is replaced by any other pair with one.
const PATH_SILENCE: Duration = Duration::from_secs(6);
