//! What the WebRTC room counts.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a datagram was not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ignored {
    /// Neither STUN nor DTLS nor RTCP, or broken.
    Garbage,
    /// STUN for nobody here.
    UnknownUser,
    /// STUN with a wrong password.
    WrongPassword,
    /// STUN that was seen before from elsewhere.
    Replayed,
    /// DTLS or RTCP from an address that was never authenticated.
    UnknownAddress,
    /// DTLS that breaks its rules.
    BadDtls,
    /// RTCP that cannot be decrypted or read, or comes before its keys.
    BadRtcp,
    /// RTP: a viewer has nothing to send.
    Rtp,
}

/// Label of [`Metrics::ignored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: Ignored,
}

/// Counters of all workers together; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Sessions now.
    pub sessions: Gauge,
    /// Sessions since the start.
    pub sessions_total: Counter,
    /// Handshakes that ended with another certificate than the offer named.
    pub wrong_certificates: Counter,
    /// Media packets sent, retransmissions included.
    pub packets: Counter,
    /// Bytes of UDP payload sent.
    pub bytes: Counter,
    /// Packets the kernel had no room for, or refused.
    pub unsent_packets: Counter,
    /// Packets viewers asked for again.
    pub nacked_packets: Counter,
    /// Packets sent again.
    pub retransmitted_packets: Counter,
    /// Key frames viewers asked for.
    pub key_frame_requests: Counter,
    /// Datagrams received and not used.
    pub ignored: Family<Reason, Counter>,
}

impl Metrics {
    /// Puts them into the registry of the engine.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("webrtc");
        r.register("sessions", "Viewers now", self.sessions.clone());
        r.register("sessions_opened", "Viewers since the start", self.sessions_total.clone());
        r.register("wrong_certificates", "Handshakes with a foreign certificate", self.wrong_certificates.clone());
        r.register("packets", "Media packets sent", self.packets.clone());
        r.register("sent_bytes", "UDP payload bytes sent", self.bytes.clone());
        r.register("unsent_packets", "Packets the kernel did not take", self.unsent_packets.clone());
        r.register("nacked_packets", "Packets viewers asked for again", self.nacked_packets.clone());
        r.register("retransmitted_packets", "Packets sent again", self.retransmitted_packets.clone());
        r.register("key_frame_requests", "Key frames viewers asked for", self.key_frame_requests.clone());
        r.register("ignored_datagrams", "Datagrams received and not used", self.ignored.clone());
    }

    pub(super) fn ignore(&self, reason: Ignored) {
        self.ignored.get_or_create(&Reason { reason }).inc();
    }
}
