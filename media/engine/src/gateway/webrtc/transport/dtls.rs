//! The DTLS server side of one session, from the ClientHello to the SRTP keys (RFC 5764), and the
//! certificate of this process.
//!
//! Datagrams go in, [`DtlsEvent`]s and datagrams to send come out. Knows no socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use headwater_wire::webrtc::{ClientHello, Fingerprint, count_handshake_fragments};
use rtc_crypto::RTCCryptoProvider;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use rtc_srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc_srtp::protection_profile::ProtectionProfile;

use crate::gateway::webrtc::transport::srtp::SrtpSession;

/// Maximum number of bytes that a client may send in one association. A handshake takes 2 to 5 KB
/// and is retransmitted at most seven times; only an alert follows, as there are no data channels.
/// The endpoint has no such limit: it keeps all records of the next epoch.
const MAX_RECEIVED_BYTES: usize = 16 << 10;
/// Maximum number of unencrypted handshake messages, or fragments of them, in one association. A
/// client sends seven messages, the longest in two or three fragments, and may retransmit each
/// flight seven times. The endpoint searches all fragments of a message for each of them, whenever
/// one more arrives: the cost grows with the third power of their number.
const MAX_FRAGMENTS: usize = 256;

/// The endpoint distinguishes associations by address. Each session has its own endpoint, and the
/// real address of the client may change during a session, so a constant takes its place.
const PLACEHOLDER_PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The self-signed certificate and the handshake configurations, shared by all sessions
/// of a process.
pub(crate) struct Identity {
    pub(crate) provider: Arc<dyn RTCCryptoProvider>,
    pub(crate) fingerprint: Fingerprint,
    gcm_config: Arc<HandshakeConfig>,
    cm_config: Arc<HandshakeConfig>,
}

impl Identity {
    /// Generates a new certificate. Clients receive its fingerprint in the SDP answer.
    pub(crate) fn new() -> Result<Self, Error> {
        let provider = rtc_crypto::default_provider().map_err(|e| Error::Crypto(e.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["headwater".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().ok_or(Error::ErrInvalidCertificate)?;
        let fingerprint = Fingerprint::of(der);
        let config = |profile| {
            ConfigBuilder::default()
                .with_crypto_provider(Arc::clone(&provider))
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(vec![profile])
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .build(false, None)
                .map(Arc::new)
        };
        let gcm_config = config(SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm)?;
        let cm_config = config(SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80)?;
        Ok(Self { provider, fingerprint, gcm_config, cm_config })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// The effect of a received datagram.
#[derive(Debug)]
pub(crate) enum DtlsEvent {
    /// The caller has nothing to do beyond sending pending datagrams.
    NoChange,
    /// The handshake is complete, and the certificate matches the fingerprint in the offer.
    Connected(Box<SrtpSession>),
    /// The handshake is complete, but the certificate does not match the offer. Nothing
    /// may be sent.
    WrongCertificate,
    /// The client closed the association.
    Closed,
}

/// A DTLS association in the server role.
pub(crate) struct Dtls {
    expected: Fingerprint,
    state: State,
    received_bytes: usize,
    received_fragments: usize,
}

enum State {
    CollectingHello(ClientHello),
    Running(Box<Endpoint>),
}

impl Dtls {
    /// Creates an association for a client whose certificate has the fingerprint `expected`.
    pub(crate) fn new(expected: Fingerprint) -> Self {
        let state = State::CollectingHello(ClientHello::default());
        Self { expected, state, received_bytes: 0, received_fragments: 0 }
    }

    /// Processes a received datagram. Afterwards [`Dtls::poll_transmit`] returns the responses.
    ///
    /// # Errors
    /// Fails for a datagram that violates the protocol; the association remains usable. Fails for
    /// every datagram after a client has sent more than any handshake needs.
    pub(crate) fn on_datagram(
        &mut self,
        now: Instant,
        datagram: &[u8],
        identity: &Identity,
    ) -> Result<DtlsEvent, Error> {
        self.received_bytes = self.received_bytes.saturating_add(datagram.len());
        if self.received_bytes > MAX_RECEIVED_BYTES {
            return Err(Error::Other(format!("more than {MAX_RECEIVED_BYTES} bytes of DTLS were received")));
        }
        self.received_fragments = self.received_fragments.saturating_add(count_handshake_fragments(datagram));
        if self.received_fragments > MAX_FRAGMENTS {
            return Err(Error::Other(format!("more than {MAX_FRAGMENTS} fragments of DTLS were received")));
        }
        let hello = match &mut self.state {
            State::Running(_) => return self.feed_endpoint(now, datagram, identity),
            State::CollectingHello(hello) => hello,
        };
        if !hello.push(datagram).map_err(|e| Error::Other(e.to_string()))? {
            return Ok(DtlsEvent::NoChange);
        }
        let hello = std::mem::take(hello);
        let config = if hello.offers_gcm() { &identity.gcm_config } else { &identity.cm_config };
        let endpoint = Endpoint::new(PLACEHOLDER_PEER, TransportProtocol::UDP, Some(Arc::clone(config)));
        self.state = State::Running(Box::new(endpoint));
        for datagram in hello.into_datagrams() {
            self.feed_endpoint(now, &datagram, identity)?;
        }
        Ok(DtlsEvent::NoChange)
    }

    fn feed_endpoint(&mut self, now: Instant, datagram: &[u8], identity: &Identity) -> Result<DtlsEvent, Error> {
        let State::Running(endpoint) = &mut self.state else { return Ok(DtlsEvent::NoChange) };
        let mut outcome = DtlsEvent::NoChange;
        for event in endpoint.read(now, PLACEHOLDER_PEER, None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => outcome = finish_handshake(endpoint, self.expected, identity)?,
                EndpointEvent::PeerClosed => return Ok(DtlsEvent::Closed),
                // There are no data channels.
                _ => {}
            }
        }
        Ok(outcome)
    }

    /// Returns the number of bytes and of unencrypted handshake fragments that were received.
    pub(crate) fn received(&self) -> (usize, usize) {
        (self.received_bytes, self.received_fragments)
    }

    /// Returns the next datagram to send, if any.
    pub(crate) fn poll_transmit(&mut self) -> Option<BytesMut> {
        match &mut self.state {
            State::CollectingHello(_) => None,
            State::Running(endpoint) => endpoint.poll_transmit().map(|t| t.message),
        }
    }

    /// Retransmits the last flight if its timer has expired.
    ///
    /// # Errors
    /// Fails if the maximum number of retransmissions is exceeded.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Result<(), Error> {
        match &mut self.state {
            State::Running(endpoint) if endpoint.poll_timeout(&PLACEHOLDER_PEER).is_some() => {
                endpoint.handle_timeout(PLACEHOLDER_PEER, now)
            }
            _ => Ok(()),
        }
    }

    /// Queues a close_notify alert for [`Dtls::poll_transmit`].
    pub(crate) fn close(&mut self, now: Instant) {
        if let State::Running(endpoint) = &mut self.state {
            // The session ends in any case; the alert is best effort.
            let _ = endpoint.close(now);
        }
    }
}

fn finish_handshake(endpoint: &Endpoint, expected: Fingerprint, identity: &Identity) -> Result<DtlsEvent, Error> {
    let state = endpoint.get_connection_state(PLACEHOLDER_PEER).ok_or(Error::ErrConnClosed)?;
    // RFC 8827 §5: the fingerprint received over HTTP authenticates the certificate.
    if state.peer_certificates.first().map(|der| Fingerprint::of(der)) != Some(expected) {
        return Ok(DtlsEvent::WrongCertificate);
    }
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        other => return Err(Error::Other(format!("no SRTP profile in common: {other:?}"))),
    };
    let bytes = Config { profile, ..Config::default() }.keying_material_len();
    let keying_material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], bytes)?;
    Ok(DtlsEvent::Connected(Box::new(SrtpSession::new(profile, keying_material.as_ref(), identity.provider.crypto())?)))
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("expected", &self.expected).finish_non_exhaustive()
    }
}
