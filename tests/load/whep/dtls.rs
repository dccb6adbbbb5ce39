//! The viewer's DTLS handshake (RFC 6347) and the SRTP keys derived from it (RFC 5764).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use rtc_crypto::RTCCryptoProvider;
use rtc_dtls::config::{ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc_srtp::context::Context;
use rtc_srtp::option::srtp_replay_protection;
use rtc_srtp::protection_profile::ProtectionProfile;

use crate::udp::Socket;

/// The certificate that all viewers of this process share.
pub(crate) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    config: Arc<HandshakeConfig>,
    /// SHA-256 fingerprint of the certificate, in SDP notation.
    pub(crate) fingerprint: String,
}

/// SRTP contexts of one session.
pub(crate) struct Srtp {
    /// Decrypts packets of the server.
    pub(crate) incoming: Context,
    /// Encrypts the viewer's RTCP reports.
    pub(crate) outgoing: Context,
}

impl Identity {
    /// Generates a certificate.
    ///
    /// # Errors
    /// If the crypto library fails.
    pub(crate) fn new() -> Result<Self> {
        let provider = rtc_crypto::default_provider().map_err(|e| anyhow::anyhow!("{e}"))?;
        let certificate = Certificate::generate_self_signed(vec!["viewer".to_owned()], provider.crypto())?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.certificate[0].as_ref());
        let fingerprint = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&provider))
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            ])
            .with_insecure_skip_verify(true)
            .build(true, None)?;
        Ok(Self { provider, config: Arc::new(config), fingerprint })
    }

    /// Performs the handshake over a connected socket; packets that are not DTLS
    /// are passed to `other`.
    ///
    /// # Errors
    /// If the server refuses or the handshake takes more than ten seconds.
    pub(crate) async fn handshake(&self, socket: &Socket, mut other: impl FnMut(&[u8])) -> Result<Srtp> {
        let (local, peer) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        let mut endpoint = Endpoint::new(local, TransportProtocol::UDP, None);
        endpoint.connect(Instant::now(), peer, Arc::clone(&self.config), None)?;
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        loop {
            while let Some(packet) = endpoint.poll_transmit() {
                socket.send(&packet.message).await?;
            }
            let now = Instant::now();
            if now >= deadline {
                bail!("the DTLS handshake did not complete within {HANDSHAKE_TIMEOUT:?}");
            }
            let wait = endpoint.poll_timeout(&peer).map_or(deadline, |at| at.min(deadline));
            let mut packets = Vec::new();
            let received = tokio::time::timeout_at(
                wait.into(),
                socket.receive(|packet| match packet.first() {
                    Some(20..=63) => packets.push(BytesMut::from(packet)),
                    _ => other(packet),
                }),
            );
            match received.await {
                Ok(read) => read?,
                Err(_) => endpoint.handle_timeout(peer, Instant::now())?,
            }
            for packet in packets {
                let events = endpoint.read(Instant::now(), peer, None, packet)?;
                if events.iter().any(|e| matches!(e, EndpointEvent::HandshakeComplete)) {
                    while let Some(packet) = endpoint.poll_transmit() {
                        socket.send(&packet.message).await?;
                    }
                    return self.keys(&endpoint, peer);
                }
            }
        }
    }

    fn keys(&self, endpoint: &Endpoint, peer: SocketAddr) -> Result<Srtp> {
        let state = endpoint.get_connection_state(peer).context("no DTLS state")?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            other => bail!("the server chose an unexpected SRTP profile: {other:?}"),
        };
        let mut config = Config { profile, ..Config::default() };
        let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), true)?;
        let keys = &config.keys;
        let crypto = self.provider.crypto();
        Ok(Srtp {
            incoming: Context::new(
                &keys.remote_master_key,
                &keys.remote_master_salt,
                profile,
                Some(srtp_replay_protection(1024)),
                None,
                crypto,
            )?,
            outgoing: Context::new(&keys.local_master_key, &keys.local_master_salt, profile, None, None, crypto)?,
        })
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
