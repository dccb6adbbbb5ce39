//! SRTP towards one viewer (RFC 3711, RFC 7714): media sealed straight into the send buffer, RTCP both ways.
//!
//! AES-128-GCM, which nearly every client takes, is sealed here with `ring`; the older AES-CM with SHA-1 goes through
//! `rtc-srtp`. The key of the media direction is used here alone, so no nonce is ever used for two plaintexts: the same
//! sequence number always carries the same packet.

use bytes::BytesMut;
use headwater_wire::rtp::{HEADER_BYTES, Header};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rtc_crypto::{BlockCipherAlgorithm, RTCCrypto};
use rtc_shared::error::Error;
use rtc_srtp::config::Config;
use rtc_srtp::context::Context;
use rtc_srtp::option::srtcp_replay_protection;
use rtc_srtp::protection_profile::ProtectionProfile;

/// RTCP packets that may come out of order.
const REPLAY_WINDOW: usize = 64;

/// The keys of one session.
#[derive(Debug)]
pub(super) struct Srtp {
    pub(super) media: Media,
    pub(super) rtcp: Box<Rtcp>,
}

/// Seals media. The key lies in it, not behind it: see `prefetch.rs`.
#[expect(clippy::large_enum_variant, reason = "nearly every viewer has the large one")]
pub(super) enum Media {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Cm(Box<Context>),
}

/// Seals and opens reports.
pub(super) struct Rtcp {
    outgoing: Context,
    incoming: Context,
}

impl Srtp {
    /// From what the DTLS handshake exports (RFC 5764 §4.2); we are its server.
    pub(super) fn new(profile: ProtectionProfile, keying: &[u8], crypto: &dyn RTCCrypto) -> Result<Self, Error> {
        let mut config = Config { profile, ..Config::default() };
        config.set_session_keys_from_keying_material(keying, false)?;
        let keys = &config.keys;
        let (key, salt) = (&keys.local_master_key, &keys.local_master_salt);
        let context = |replay| Context::new(key, salt, profile, None, replay, crypto);
        let media = match profile {
            ProtectionProfile::AeadAes128Gcm => gcm(key, salt, crypto)?,
            _ => Media::Cm(Box::new(context(None)?)),
        };
        let replay = Some(srtcp_replay_protection(REPLAY_WINDOW));
        let (remote_key, remote_salt) = (&keys.remote_master_key, &keys.remote_master_salt);
        let incoming = Context::new(remote_key, remote_salt, profile, None, replay, crypto)?;
        Ok(Self { media, rtcp: Box::new(Rtcp { outgoing: context(None)?, incoming }) })
    }
}

impl Media {
    /// Bytes of a sealed packet with this payload.
    pub(super) fn sealed_bytes(&self, payload_bytes: usize) -> usize {
        let tag = match self {
            Self::Gcm { .. } => AES_128_GCM.tag_len(),
            Self::Cm(_) => 10,
        };
        HEADER_BYTES + payload_bytes + tag
    }

    /// Writes a sealed packet into `out`, which must have [`Media::sealed_bytes`] bytes. `rollovers`: how often the sequence
    /// number has wrapped (RFC 3711 §3.3.1).
    pub(super) fn seal(
        &mut self,
        header: &Header,
        rollovers: u32,
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
                    | (u128::from(rollovers) << 16)
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

impl Rtcp {
    /// Seals a compound packet.
    pub(super) fn seal(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.outgoing.encrypt_rtcp(packet)
    }

    /// Opens a compound packet; one that was seen before is an error.
    pub(super) fn open(&mut self, packet: &[u8]) -> Result<BytesMut, Error> {
        self.incoming.decrypt_rtcp(packet)
    }
}

/// Session key and salt from master key and salt (RFC 3711 §4.3.1 and §4.3.3, with a key derivation rate of 0).
fn gcm(master_key: &[u8], master_salt: &[u8], crypto: &dyn RTCCrypto) -> Result<Media, Error> {
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
    Ok(Media::Gcm { key: LessSafeKey::new(key), salt })
}

impl std::fmt::Debug for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Media(…)")
    }
}

impl std::fmt::Debug for Rtcp {
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
        let keying: Vec<u8> = (0..config.keying_material_len()).map(|i| i as u8 * 3).collect();
        config.set_session_keys_from_keying_material(&keying, true).unwrap();
        let keys = &config.keys;
        let mut viewer =
            Context::new(&keys.remote_master_key, &keys.remote_master_salt, profile, None, None, crypto).unwrap();
        let mut srtp = Srtp::new(profile, &keying, crypto).unwrap();
        for out_of in 65_530..65_545_u64 {
            let sequence_number = out_of as u16;
            let header = Header {
                padded: false,
                marker: true,
                payload_type: 96,
                sequence_number,
                timestamp: 1,
                ssrc: 0x1234_5678,
            };
            let payload = vec![out_of as u8; 1_000];
            let mut out = vec![0; srtp.media.sealed_bytes(payload.len())];
            srtp.media.seal(&header, (out_of >> 16) as u32, &payload, &mut out).unwrap();
            let opened = viewer.decrypt_rtp(&out).unwrap();
            assert_eq!(Header::parse(&opened).unwrap(), (header, &payload[..]));
        }
    }

    #[test]
    fn what_is_sealed_here_another_implementation_opens_across_a_wrap() {
        check(ProtectionProfile::AeadAes128Gcm);
        check(ProtectionProfile::Aes128CmHmacSha1_80);
    }
}
