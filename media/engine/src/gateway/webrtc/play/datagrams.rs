//! What a worker does with a received datagram: STUN, DTLS and RTCP of its sessions.
//!
//! ```text
//!   STUN request --user name--> session     STUN response --tag--> session
//!   DTLS, RTCP --source address--> session
//! ```
//!
//! Finds the session, lets it process the datagram, and applies the outcome to the worker. Must not
//! know when datagrams are received.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_wire::webrtc::{BindingRequest, BindingResponse, DatagramKind, Feedback, StunError};

use crate::gateway::webrtc::metrics::IgnoreReason;
use crate::gateway::webrtc::play::session::Session;
use crate::gateway::webrtc::play::worker::Worker;
use crate::gateway::webrtc::transport::dtls::DtlsEvent;
use crate::gateway::webrtc::transport::ice::{CheckOutcome, IceAgent};
use crate::gateway::webrtc::transport::udp::AddressPair;

/// Minimum interval between key frame requests of one viewer that are forwarded.
pub(super) const KEY_FRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(500);

impl Worker {
    /// Processes a datagram; an invalid one is counted and ignored.
    pub(super) fn on_datagram(&mut self, now: Instant, pair: &AddressPair, datagram: &[u8]) {
        let ignore_reason = match DatagramKind::of(datagram) {
            DatagramKind::Stun => self.on_stun(now, pair, datagram),
            DatagramKind::Dtls => self.on_dtls(now, pair, datagram),
            DatagramKind::Rtcp => self.on_rtcp(now, pair, datagram),
            DatagramKind::Rtp => Some(IgnoreReason::Rtp),
            DatagramKind::Unknown => Some(IgnoreReason::Garbage),
        };
        if let Some(reason) = ignore_reason {
            self.context.metrics.count_ignored(reason);
            log::trace!(peer:% = pair.remote, reason:? = reason; "datagram ignored");
        }
    }

    fn on_stun(&mut self, now: Instant, pair: &AddressPair, datagram: &[u8]) -> Option<IgnoreReason> {
        if BindingResponse::matches(datagram) {
            return self.on_answer(now, pair, datagram);
        }
        let mut request = match BindingRequest::parse(datagram) {
            Ok(request) => request,
            Err(StunError::NoCredentials) => return Some(IgnoreReason::UnknownUser),
            Err(_) => return Some(IgnoreReason::Garbage),
        };
        let Some(&slot) = self.by_ufrag.get(request.receiver_ufrag()) else { return Some(IgnoreReason::UnknownUser) };
        let session = self.sessions[slot].as_mut()?;
        let crypto = self.context.identity.provider.crypto();
        let is_first = !session.ice.has_peer();
        let outcome = session
            .with_ice(now, |ice| ice.on_check(now, &mut request, pair, datagram.len(), &mut self.socket, crypto));
        match outcome {
            Ok(CheckOutcome::Valid { evicted }) => {
                if is_first {
                    self.context.directory.renew(&session.id);
                }
                if let Some(old) = evicted.filter(|old| self.by_address.get(old) == Some(&slot)) {
                    self.by_address.remove(&old);
                }
                self.claim_address(now, pair.remote, slot);
                None
            }
            Ok(CheckOutcome::Repeated) => None,
            Ok(CheckOutcome::Replayed) => Some(IgnoreReason::Replayed),
            Err(_) => Some(IgnoreReason::WrongPassword),
        }
    }

    /// Processes the response to one of the node's own checks: it proves the address.
    fn on_answer(&mut self, now: Instant, pair: &AddressPair, datagram: &[u8]) -> Option<IgnoreReason> {
        let Ok(mut response) = BindingResponse::parse(datagram) else { return Some(IgnoreReason::Garbage) };
        let slot = IceAgent::tag_of(&response) as usize;
        let Some(session) = self.sessions.get_mut(slot).and_then(Option::as_mut) else {
            return Some(IgnoreReason::UnexpectedAnswer);
        };
        let was_paused = session.send_state.selected_pair.is_none();
        let crypto = self.context.identity.provider.crypto();
        if !session.with_ice(now, |ice| ice.on_answer(now, &mut response, pair, crypto)) {
            return Some(IgnoreReason::UnexpectedAnswer);
        }
        let is_resumed = was_paused && session.send_state.selected_pair.is_some() && session.is_connected();
        self.claim_address(now, pair.remote, slot);
        if is_resumed {
            self.send_new(&[slot], None);
        }
        None
    }

    /// Assigns the DTLS and RTCP datagrams from an address to a session: to the one that proved the
    /// address last or, if none has, to the one whose check came last. A forged check therefore
    /// cannot take the address of another viewer.
    fn claim_address(&mut self, now: Instant, address: SocketAddr, slot: usize) {
        let is_proven = |slot: usize| {
            self.sessions.get(slot).and_then(Option::as_deref).is_some_and(|s| s.ice.is_proven(now, address))
        };
        let owner = self.by_address.get(&address).copied().filter(|&owner| owner != slot);
        if owner.is_none_or(|owner| is_proven(slot) || !is_proven(owner)) {
            self.by_address.insert(address, slot);
        }
    }

    fn on_dtls(&mut self, now: Instant, pair: &AddressPair, datagram: &[u8]) -> Option<IgnoreReason> {
        let Some(&slot) = self.by_address.get(&pair.remote) else { return Some(IgnoreReason::UnknownAddress) };
        let session = self.sessions[slot].as_mut()?;
        match session.on_dtls(now, datagram, pair, &mut self.socket, &self.context.identity) {
            Ok(DtlsEvent::NoChange) => None,
            Ok(DtlsEvent::Connected(srtp)) => {
                self.connect(now, slot, *srtp);
                None
            }
            Ok(DtlsEvent::WrongCertificate) => {
                self.context.metrics.wrong_certificates.inc();
                log::warn!(peer:% = pair.remote; "viewer certificate does not match its offer");
                self.close(slot, "wrong certificate", false);
                None
            }
            Ok(DtlsEvent::Closed) => {
                self.close(slot, "closed by the viewer", false);
                None
            }
            Err(e) => {
                log::debug!(peer:% = pair.remote, err:% = e; "DTLS datagram refused");
                Some(IgnoreReason::BadDtls)
            }
        }
    }

    fn on_rtcp(&mut self, now: Instant, pair: &AddressPair, datagram: &[u8]) -> Option<IgnoreReason> {
        let Some(&slot) = self.by_address.get(&pair.remote) else { return Some(IgnoreReason::UnknownAddress) };
        let session = self.sessions[slot].as_mut()?;
        let Some(plaintext) = session.decrypt_rtcp(datagram) else { return Some(IgnoreReason::BadRtcp) };
        let Some(feedback) = Feedback::parse(&plaintext) else { return Some(IgnoreReason::BadRtcp) };
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
        self.context.metrics.nacked_packets.inc_by(sequence_numbers.len() as u64);
        let Some(session) = self.sessions[slot].as_deref_mut() else { return };
        let Session { send_state, rtx_limiter, .. } = session;
        let Some((tracks, mut sink)) = send_state.split_for_sending(&mut self.socket) else { return };
        let Some(track) = tracks.iter_mut().find(|t| t.ssrc == ssrc) else { return };
        let Some(replica) = self.replicas.get(&track.packetizer_id) else { return };
        let allowed = rtx_limiter.available(now);
        let mut sent = 0;
        for &number in sequence_numbers {
            if sent == allowed {
                break;
            }
            sent += u32::from(track.retransmit(&replica.ring, number, &mut sink));
        }
        rtx_limiter.consume(sent);
        self.context.metrics.retransmitted_packets.inc_by(u64::from(sent));
    }

    fn on_key_frame_request(&mut self, now: Instant, slot: usize, ssrc: u32) {
        self.context.metrics.key_frame_requests.inc();
        let Some(session) = self.sessions[slot].as_mut() else { return };
        let recently = session
            .key_frame_requested_at
            .is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_REQUEST_INTERVAL);
        if !recently && session.send_state.tracks.iter().any(|t| t.ssrc == ssrc) {
            session.key_frame_requested_at = Some(now);
            session.stream.request_key_frame();
        }
    }
}
