//! One viewer: its ICE-lite path, its DTLS association, its keys and its tracks. Owned and driven by one worker.
//!
//! ```text
//!   Waiting --authenticated STUN--> Checked --DTLS, right certificate--> Sending --leave, expiry, end of stream--> gone
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use headwater_wire::webrtc::{BindingRequest, Credentials, Fingerprint, SenderReport, StunError, goodbye};
use rtc_crypto::RTCCrypto;

use super::dtls::{Dtls, Identity, Progress};
use super::feed::{Anchor, Feed};
use super::play::SessionId;
use super::resends::Resends;
use super::srtp::{Rtcp, Srtp};
use super::track::Outlet;
use super::udp::{Path, Socket};
use crate::hub::{Stream, ViewerGuard};

/// Addresses one viewer may check from: its interfaces, and what its NAT makes of them.
const MAX_ADDRESSES: usize = 16;
/// Transactions remembered, so that a copy of a request from elsewhere is not taken for a move.
const MAX_TRANSACTIONS: usize = 64;
/// Seconds between 1900 and 1970 (RFC 3550 §4).
const NTP_TO_UNIX_S: u64 = 2_208_988_800;
/// The name both tracks of a stream share.
pub(super) const CNAME: &str = "headwater";

/// What the HTTP side hands to a worker.
#[derive(Debug)]
pub(super) struct NewSession {
    pub(super) id: SessionId,
    pub(super) stream: Arc<Stream>,
    pub(super) credentials: Credentials,
    pub(super) remote_ufrag: String,
    pub(super) fingerprint: Fingerprint,
    /// Feeds with the payload type the viewer gave them; pictures first.
    pub(super) feeds: Vec<(Arc<Feed>, u8)>,
    pub(super) guard: ViewerGuard,
}

/// One viewer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) stream: Arc<Stream>,
    pub(super) credentials: Credentials,
    remote_ufrag: String,
    /// Addresses that have proved to know the password.
    pub(super) addresses: Vec<SocketAddr>,
    transactions: Vec<([u8; 12], SocketAddr)>,
    /// Where its packets go, with which key, and how far they are.
    pub(super) outlet: Outlet,
    /// The current path, and when the kernel was last asked what need not be said of it.
    way: Option<(Path, Instant)>,
    /// When it was last confirmed.
    path_at: Instant,
    last_valid: Instant,
    dtls: Dtls,
    rtcp: Option<Box<Rtcp>>,
    /// Feeds it waits for, until it is connected; then the worker turns them into tracks.
    pub(super) feeds: Vec<(Arc<Feed>, u8)>,
    pub(super) opened: Instant,
    /// On the worker's list of those who have more to get than one burst.
    pub(super) behind: bool,
    pub(super) resends: Resends,
    pub(super) key_frame_asked: Option<Instant>,
    _guard: ViewerGuard,
}

/// What became of a STUN datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Answered; the address is good. An older one may have been forgotten for it.
    Valid {
        /// Not the viewer's any more.
        forgotten: Option<SocketAddr>,
    },
    /// Answered as before; says nothing new.
    Answered,
    /// A copy, sent from elsewhere.
    Replayed,
}

impl Session {
    pub(super) fn new(new: NewSession, now: Instant) -> Self {
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

    /// Where the viewer is, once it has been heard.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.outlet.path.map(|p| p.peer)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.rtcp.is_some()
    }

    /// Answers a connectivity check (RFC 8445 §7.3), and follows the viewer where it leads.
    pub(super) fn on_check(
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
            // Asked again since the answer was lost, or by somebody who has recorded it: no sign of life.
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

    /// Its packets go there. The kernel is asked when that is another way than before, and again from time to time: routes change.
    fn follow(&mut self, now: Instant, path: &Path) {
        let asked = |(way, at)| way == *path && now.saturating_duration_since(at) < ROUTES_LAST;
        if !self.way.is_some_and(asked) {
            self.way = Some((*path, now));
            self.outlet.path = Some(path.shortened());
        }
    }

    /// Remembers an address, the latest last. Gives the one that there is no room for any more.
    fn remember(&mut self, peer: SocketAddr) -> Option<SocketAddr> {
        self.addresses.retain(|known| *known != peer);
        let forgotten = (self.addresses.len() == MAX_ADDRESSES).then(|| self.addresses.remove(0));
        self.addresses.push(peer);
        forgotten
    }

    /// Takes a DTLS datagram and sends what it asks for. With a wrong certificate nothing at all is sent.
    pub(super) fn on_dtls(
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

    /// Takes the keys; the worker adds the tracks.
    pub(super) fn connect(&mut self, srtp: Srtp) {
        self.outlet.media = Some(srtp.media);
        self.rtcp = Some(srtp.rtcp);
    }

    /// What a viewer says, decrypted; `None` if it cannot be.
    pub(super) fn open_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.rtcp.as_mut()?.open(packet).ok()
    }

    /// From time to time. False once the viewer has not been heard for `consent` (RFC 7675 §5.1).
    pub(super) fn on_time(&mut self, now: Instant, consent: Duration, socket: &mut Socket) -> bool {
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

    /// Tells what media time it is on the wall, the same for both tracks, so that lips and sound match
    /// (RFC 3550 §6.4.1). `clock_of` gives offset and rate of a feed.
    pub(super) fn send_reports(
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
        // One datagram for both tracks (RFC 3550 §6.1).
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

    /// Says goodbye: RTCP BYE for each track, then close_notify.
    pub(super) fn say_goodbye(&mut self, now: Instant, socket: &mut Socket) {
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

/// The kernel is not asked more often which of our addresses it takes.
const ROUTES_LAST: Duration = Duration::from_secs(30);
/// A path that was not confirmed for so long gives way to one that is.
const PATH_SILENCE: Duration = Duration::from_secs(6);
