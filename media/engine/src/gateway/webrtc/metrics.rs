//! Metrics of the WebRTC gateway.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a received datagram was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum IgnoreReason {
    /// Neither STUN nor DTLS nor RTP nor RTCP, or malformed.
    Garbage,
    /// STUN whose username belongs to no session of this worker.
    UnknownUser,
    /// STUN whose integrity check failed.
    WrongPassword,
    /// STUN with a transaction id that was received before from another address.
    Replayed,
    /// STUN response that answers none of the node's own checks.
    UnexpectedAnswer,
    /// DTLS or RTCP from an address that no STUN check has authenticated.
    UnknownAddress,
    /// DTLS that violates the protocol.
    BadDtls,
    /// RTCP that cannot be decrypted or parsed, or that arrives before the handshake is complete.
    BadRtcp,
    /// RTP: viewers must not send media.
    Rtp,
}

/// Labels of [`Metrics::ignored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IgnoredLabels {
    /// Why the datagram was ignored.
    pub reason: IgnoreReason,
}

/// Metrics of all workers together; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Current number of connected sessions.
    pub sessions: Gauge,
    /// Sessions connected since the start.
    pub sessions_total: Counter,
    /// Current number of sessions whose viewer has not connected yet.
    pub connecting_sessions: Gauge,
    /// Sessions that ended before their viewer connected.
    pub unconnected_sessions: Counter,
    /// Handshakes whose certificate did not match the offer.
    pub wrong_certificates: Counter,
    /// Media packets sent, retransmissions included.
    pub packets: Counter,
    /// Bytes of UDP payload sent.
    pub bytes: Counter,
    /// Packets that the kernel refused or had no buffer space for.
    pub unsent_packets: Counter,
    /// Packets that viewers reported as lost (NACK).
    pub nacked_packets: Counter,
    /// Packets retransmitted to viewers.
    pub retransmitted_packets: Counter,
    /// Key frame requests from viewers (PLI and FIR).
    pub key_frame_requests: Counter,
    /// Datagrams received and ignored, by reason.
    pub ignored: Family<IgnoredLabels, Counter>,
}

impl Metrics {
    /// Registers all metrics under the prefix `webrtc`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("webrtc");
        r.register("sessions", "Current number of viewers", self.sessions.clone());
        r.register("sessions_opened", "Viewers connected since the start", self.sessions_total.clone());
        r.register(
            "connecting_sessions",
            "Current number of sessions whose viewer has not connected yet",
            self.connecting_sessions.clone(),
        );
        r.register(
            "unconnected_sessions",
            "Sessions that ended before their viewer connected",
            self.unconnected_sessions.clone(),
        );
        r.register(
            "wrong_certificates",
            "DTLS handshakes whose certificate did not match the offer",
            self.wrong_certificates.clone(),
        );
        r.register("packets", "Media packets sent", self.packets.clone());
        r.register("sent_bytes", "UDP payload bytes sent", self.bytes.clone());
        r.register("unsent_packets", "Packets that the kernel did not accept", self.unsent_packets.clone());
        r.register("nacked_packets", "Packets that viewers reported as lost", self.nacked_packets.clone());
        r.register("retransmitted_packets", "Packets retransmitted", self.retransmitted_packets.clone());
        r.register("key_frame_requests", "Key frame requests from viewers", self.key_frame_requests.clone());
        r.register("ignored_datagrams", "Datagrams received and ignored", self.ignored.clone());
    }

    pub(super) fn count_ignored(&self, reason: IgnoreReason) {
        self.ignored.get_or_create(&IgnoredLabels { reason }).inc();
    }
}
