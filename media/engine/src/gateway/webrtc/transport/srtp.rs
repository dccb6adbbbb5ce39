//! SRTP of one session (RFC 3711, RFC 7714): outgoing media is sealed directly in the send buffer;
//! RTCP is sealed and opened.
//!
//! AES-128-GCM, which nearly every client supports, is implemented here with `ring`; the older
//! AES-CM with HMAC-SHA1 uses `rtc-srtp`. Only this file uses the key of the media direction, and a
//! sequence number always identifies the same packet, so no nonce is used for two plaintexts.

use bytes::BytesMut;
use headwater_wire::rtp::{HEADER_BYTES, Header};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtc_crypto::{BlockCipherAlgorithm, RTCCrypto};
use rtc_shared::error::Error;
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::option::srtcp_replay_protection;
use rtc_srtp::protection_profile::ProtectionProfile;

/// Size of the SRTCP replay window, in packets.
const REPLAY_WINDOW: usize = 64;

/// The ciphers of one session.
#[derive(Debug)]
pub(crate) struct SrtpSession {
    pub(crate) media_cipher: MediaCipher,
    pub(crate) rtcp_cipher: Box<RtcpCipher>,
}

/// Seals outgoing media. The GCM key is stored inline, not boxed, so that it can be prefetched with
/// the rest of the viewer's send state (see `prefetch.rs`).
#[expect(clippy::large_enum_variant, reason = "nearly every viewer has the large one")]
pub(crate) enum MediaCipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Cm(Box<Context>),
}

/// Seals outgoing and opens incoming RTCP packets.
pub(crate) struct RtcpCipher {
    outgoing: Context,
    incoming: Context,
}

impl SrtpSession {
    /// Derives the ciphers from the keying material that the DTLS handshake exports (RFC 5764
    /// §4.2). This process is the DTLS server.
    pub(crate) fn new(
        profile: ProtectionProfile,
        keying_material: &[u8],
        crypto: &dyn RTCCrypto,
    ) -> Result<Self, Error> {
        let mut config = Config { profile, ..Config::default() };
        config.set_session_keys_from_keying_material(keying_material, false)?;
        let keys = &config.keys;
        let (key, salt) = (&keys.local_master_key, &keys.local_master_salt);
        let context = |replay| Context::new(key, salt, profile, None, replay, crypto);
        let media_cipher = match profile {
            ProtectionProfile::AeadAes128Gcm => derive_gcm(key, salt, crypto)?,
            _ => MediaCipher::Cm(Box::new(context(None)?)),
        };
        let replay = Some(srtcp_replay_protection(REPLAY_WINDOW));
        let (remote_key, remote_salt) = (&keys.remote_master_key, &keys.remote_master_salt);
        let incoming = Context::new(remote_key, remote_salt, profile, None, replay, crypto)?;
        Ok(Self { media_cipher, rtcp_cipher: Box::new(RtcpCipher { outgoing: context(None)?, incoming }) })
    }
}

impl MediaCipher {
    /// Returns the size in bytes of a sealed packet: header, payload and authentication tag.
    pub(crate) fn sealed_bytes(&self, payload_bytes: usize) -> usize {
        let tag = match self {
            Self::Gcm { .. } => AES_128_GCM.tag_len(),
            Self::Cm(_) => 10,
        };
        HEADER_BYTES + payload_bytes + tag
    }

    /// Writes a sealed packet into `out`, which must be [`MediaCipher::sealed_bytes`] long.
    /// `rollover_counter` is the number of times the sequence number has wrapped (RFC 3711 §3.3.1).
    pub(crate) fn seal(
        &mut self,
        header: &Header,
        rollover_counter: u32,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        let head = header.encode();
        out[..HEADER_BYTES].copy_from_slice(&head);
        let end = HEADER_BYTES + payload.len();
        out[HEADER_BYTES..end].copy_from_slice(payload);
        match self {
            Self::Gcm { key, salt } => {
                // RFC 7714 §8.1.
                let mut iv = *salt;
                let index = (u128::from(header.ssrc) << 48)
                    | (u128::from(rollover_counter) << 16)
                    | u128::from(header.sequence_number);
                iv.iter_mut().zip(&index.to_be_bytes()[4..]).for_each(|(a, b)| *a ^= b);
                let (text, tag) = out[HEADER_BYTES..].split_at_mut(payload.len());
                let sealed = key
                    .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(&head), text)
                    .map_err(|_| Error::Crypto("packet too long to seal".to_owned()))?;
                tag.copy_from_slice(sealed.as_ref());
            }
            Self::Cm(context) => {
                let sealed = context.encrypt_rtp(&out[..end])?;
                if sealed.len() != out.len() {
                    return Err(Error::ErrTooShortRtp);
                }
                out.copy_from_slice(&sealed);
            }
        }
        Ok(())
    }
}

impl RtcpCipher {
    /// Encrypts a compound packet.
    pub(crate) fn seal(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.outgoing.encrypt_rtcp(packet)
    }

    /// Decrypts a compound packet.
    ///
    /// # Errors
    /// Fails if the packet is not authentic or was received before.
    pub(crate) fn open(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.incoming.decrypt_rtcp(packet)
    }
}

/// Derives session key and salt from master key and salt (RFC 3711 §4.3.1 and §4.3.3, with a key
/// derivation rate of 0).
fn derive_gcm(master_key: &[u8], master_salt: &[u8], crypto: &dyn RTCCrypto) -> Result<MediaCipher, Error> {
    let derive = |label: u8| -> Result<[u8; 16], Error> {
        let mut block = [0; 16];
        block[..12].copy_from_slice(master_salt.get(..12).ok_or(Error::SrtpSaltLength(12, master_salt.len()))?);
        block[7] ^= label;
        crypto
            .block_encrypt(BlockCipherAlgorithm::Aes128, master_key, &mut block)
            .map_err(|e| Error::Crypto(e.to_string()))?;
        Ok(block)
    };
    let key = UnboundKey::new(&AES_128_GCM, &derive(0)?).map_err(|_| Error::Crypto("bad key".to_owned()))?;
    let mut salt = [0; 12];
    salt.copy_from_slice(&derive(2)?[..12]);
    Ok(MediaCipher::Gcm { key: LessSafeKey::new(key), salt })
}

impl std::fmt::Debug for MediaCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Media(…)")
    }
}

impl std::fmt::Debug for RtcpCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rtcp(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(profile: ProtectionProfile) {
        let provider = rtc_crypto::default_provider().unwrap();
        let crypto = provider.crypto();
        let mut config = Config { profile, ..Config::default() };
        let keying_material: Vec<u8> = (0..config.keying_material_len()).map(|i| i as u8 * 3).collect();
        config.set_session_keys_from_keying_material(&keying_material, true).unwrap();
        let keys = &config.keys;
        let mut viewer =
            Context::new(&keys.remote_master_key, &keys.remote_master_salt, profile, None, None, crypto).unwrap();
        let mut srtp = SrtpSession::new(profile, &keying_material, crypto).unwrap();
        for extended_seq in 65_530..65_545_u64 {
            let sequence_number = extended_seq as u16;
            let header = Header {
                padded: false,
                marker: true,
                payload_type: 96,
                sequence_number,
                timestamp: 1,
                ssrc: 0x1234_5678,
            };
            let payload = vec![extended_seq as u8; 1_000];
            let mut out = vec![0; srtp.media_cipher.sealed_bytes(payload.len())];
            srtp.media_cipher.seal(&header, (extended_seq >> 16) as u32, &payload, &mut out).unwrap();
            let opened = viewer.decrypt_rtp(&out).unwrap();
            assert_eq!(Header::parse(&opened).unwrap(), (header, &payload[..]));
        }
    }

    #[test]
    fn sealed_packets_are_opened_by_another_implementation_across_a_wrap() {
        check(ProtectionProfile::AeadAes128Gcm);
        check(ProtectionProfile::Aes128CmHmacSha1_80);
    }
}
