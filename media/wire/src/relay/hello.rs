//! The handshake: both ends prove that they know the cluster secret and derive a version and keys.
//!
//! | message | bytes |
//! | --- | --- |
//! | client hello | `HWRL`, lowest version, highest version, features, 0, nonce (32) |
//! | server hello | `HWRL`, version (0: none in common), features, 2 x 0, nonce (32), HMAC-SHA256 (32) |
//! | client proof | HMAC-SHA256 (32) |
//!
//! Each HMAC covers the role of its sender and both hellos, and thus both nonces, so a replayed or
//! reflected proof is never valid. Keys are derived from the secret and the same bytes with HKDF
//! (RFC 5869). The nonces must be random and must not be reused. There is no forward secrecy: an
//! attacker who learns the secret can decrypt recorded connections.

use std::fmt;

use ring::{aead, hkdf, hmac};

use super::features::Features;
use super::record::Channel;

/// Length of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Length of the client hello, the first message of the client.
pub const CLIENT_HELLO_BYTES: usize = HEADER_BYTES + NONCE_BYTES;
/// Length of the server hello.
pub const SERVER_HELLO_BYTES: usize = HEADER_BYTES + NONCE_BYTES + PROOF_BYTES;
/// Length of the client proof, the last message of the handshake.
pub const PROOF_BYTES: usize = 32;
/// Minimum length of the cluster secret. Anyone who can reach the port could guess a shorter one.
pub const MIN_SECRET_BYTES: usize = 16;

const HEADER_BYTES: usize = 8;
const MAGIC: &[u8; 4] = b"HWRL";
/// The only supported protocol version.
const VERSION: u8 = 1;

/// The secret that all nodes of a cluster share. `Debug` does not print it.
#[derive(Clone)]
pub struct ClusterSecret {
    proofs: hmac::Key,
    keys: hkdf::Prk,
}

/// The cluster secret is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster secret has {bytes} bytes; at least {MIN_SECRET_BYTES} are needed")]
pub struct SecretError {
    /// Length of the rejected secret.
    pub bytes: usize,
}

/// A failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer sent something other than a relay handshake.
    #[error("the peer does not use the relay protocol")]
    NotRelay,
    /// The version ranges do not overlap.
    #[error("no common protocol version: the peer supports {lowest} to {highest}")]
    NoCommonVersion {
        /// The lowest version of the peer; 0 if unknown.
        lowest: u8,
        /// The highest version of the peer; 0 if unknown.
        highest: u8,
    },
    /// The peer does not know the cluster secret.
    #[error("the peer does not know the cluster secret")]
    WrongSecret,
}

impl ClusterSecret {
    /// Creates the secret from the bytes that all nodes share.
    ///
    /// # Errors
    /// If there are fewer than [`MIN_SECRET_BYTES`].
    pub fn new(secret: &[u8]) -> Result<Self, SecretError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(SecretError { bytes: secret.len() });
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"headwater relay 1").extract(secret);
        let mut proofs = [0; 32];
        hkdf_expand(&prk, &[b"proofs"], &mut proofs);
        Ok(Self { proofs: hmac::Key::new(hmac::HMAC_SHA256, &proofs), keys: prk })
    }

    fn proof(&self, role: &[u8], client: &[u8], server: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.proofs);
        [role, client, server].iter().for_each(|part| context.update(part));
        context.sign()
    }

    /// Verifies a proof in constant time.
    fn verify_proof(&self, role: &[u8], client: &[u8], server: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.proofs, &[role, client, server].concat(), proof).is_ok()
    }

    fn channel(
        &self,
        client: &[u8; CLIENT_HELLO_BYTES],
        server: &[u8; HEADER_BYTES + NONCE_BYTES],
        is_client: bool,
    ) -> Channel {
        let key = |from: &[u8]| {
            let mut bytes = [0; 16 + aead::NONCE_LEN];
            hkdf_expand(&self.keys, &[b"records", from, &client[..], &server[..]], &mut bytes);
            bytes
        };
        let (send_role, receive_role) = if is_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let peer_features = if is_client { server[SERVER_FEATURES_AT] } else { client[CLIENT_FEATURES_AT] };
        Channel::new(&key(send_role), &key(receive_role), Features::from_byte(peer_features))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// The client side of the handshake, between client hello and server hello.
#[derive(Debug)]
pub struct ClientHandshake {
    secret: ClusterSecret,
    hello: [u8; CLIENT_HELLO_BYTES],
}

impl ClientHandshake {
    /// Begins a handshake and returns the client hello to send. `nonce` must be random.
    pub fn new(secret: &ClusterSecret, nonce: [u8; NONCE_BYTES]) -> (Self, [u8; CLIENT_HELLO_BYTES]) {
        let mut hello = [0; CLIENT_HELLO_BYTES];
        hello[..4].copy_from_slice(MAGIC);
        hello[4..6].copy_from_slice(&[VERSION, VERSION]);
        hello[CLIENT_FEATURES_AT] = Features::SUPPORTED.byte();
        hello[HEADER_BYTES..].copy_from_slice(&nonce);
        (Self { secret: secret.clone(), hello }, hello)
    }

    /// Verifies the server hello. Returns the proof to send and the channel for all later records.
    ///
    /// # Errors
    /// See [`HandshakeError`]. The client must then close the connection without sending a proof.
    pub fn on_server_hello(
        self,
        server: &[u8; SERVER_HELLO_BYTES],
    ) -> Result<([u8; PROOF_BYTES], Channel), HandshakeError> {
        let Some((server_hello, proof)) = server.split_first_chunk::<{ HEADER_BYTES + NONCE_BYTES }>() else {
            return Err(HandshakeError::NotRelay);
        };
        if !server_hello.starts_with(MAGIC) {
            return Err(HandshakeError::NotRelay);
        }
        if !self.secret.verify_proof(SERVER, &self.hello, server_hello, proof) {
            return Err(HandshakeError::WrongSecret);
        }
        if server_hello[4] != VERSION {
            return Err(HandshakeError::NoCommonVersion { lowest: server_hello[4], highest: server_hello[4] });
        }
        let mut client_proof = [0; PROOF_BYTES];
        client_proof.copy_from_slice(self.secret.proof(CLIENT, &self.hello, server_hello).as_ref());
        Ok((client_proof, self.secret.channel(&self.hello, server_hello, true)))
    }
}

/// The server side of the handshake, between server hello and client proof.
#[derive(Debug)]
pub struct ServerHandshake {
    secret: ClusterSecret,
    client: [u8; CLIENT_HELLO_BYTES],
    server: [u8; HEADER_BYTES + NONCE_BYTES],
    peer_versions: (u8, u8),
}

impl ServerHandshake {
    /// Processes a client hello and returns the server hello to send. It must be sent even if no
    /// version is common and [`ServerHandshake::on_proof`] will fail, so that the client learns the
    /// reason. `nonce` must be random.
    ///
    /// # Errors
    /// If the bytes are not a client hello.
    pub fn new(
        secret: &ClusterSecret,
        nonce: [u8; NONCE_BYTES],
        client: &[u8; CLIENT_HELLO_BYTES],
    ) -> Result<(Self, [u8; SERVER_HELLO_BYTES]), HandshakeError> {
        if !client.starts_with(MAGIC) {
            return Err(HandshakeError::NotRelay);
        }
        let peer_versions = (client[4], client[5]);
        let compatible = (peer_versions.0..=peer_versions.1).contains(&VERSION);
        let mut server = [0; HEADER_BYTES + NONCE_BYTES];
        server[..4].copy_from_slice(MAGIC);
        server[4] = if compatible { VERSION } else { 0 };
        server[SERVER_FEATURES_AT] = Features::SUPPORTED.byte();
        server[HEADER_BYTES..].copy_from_slice(&nonce);
        let mut hello = [0; SERVER_HELLO_BYTES];
        hello[..server.len()].copy_from_slice(&server);
        hello[server.len()..].copy_from_slice(secret.proof(SERVER, client, &server).as_ref());
        Ok((Self { secret: secret.clone(), client: *client, server, peer_versions }, hello))
    }

    /// Verifies the client proof and returns the channel for all later records.
    ///
    /// # Errors
    /// If the peer does not know the secret, or no version is common.
    pub fn on_proof(self, proof: &[u8; PROOF_BYTES]) -> Result<Channel, HandshakeError> {
        if self.server[4] != VERSION {
            let (lowest, highest) = self.peer_versions;
            return Err(HandshakeError::NoCommonVersion { lowest, highest });
        }
        if !self.secret.verify_proof(CLIENT, &self.client, &self.server, proof) {
            return Err(HandshakeError::WrongSecret);
        }
        Ok(self.secret.channel(&self.client, &self.server, false))
    }
}

fn hkdf_expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("at most 32 bytes, far below the limit of 255 hashes");
}

/// Positions of the features in the hellos.
const CLIENT_FEATURES_AT: usize = 6;
const SERVER_FEATURES_AT: usize = 5;

const CLIENT: &[u8] = b"client";
const SERVER: &[u8] = b"server";

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn secret(text: &str) -> ClusterSecret {
        ClusterSecret::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn peers_with_the_same_secret_get_matching_channels() {
        let secret = secret("a secret of the cluster");
        let (dial, hello) = ClientHandshake::new(&secret, [1; 32]);
        let (answer, hello) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        let (proof, mut edge) = dial.on_server_hello(&hello).unwrap();
        let mut origin = answer.on_proof(&proof).unwrap();
        for (from, to) in [(&mut edge.sealer, &mut origin.opener), (&mut origin.sealer, &mut edge.opener)] {
            let mut wire = BytesMut::new();
            from.seal_record(&mut wire, |out| out.extend_from_slice(b"hello"));
            to.buffer().extend_from_slice(&wire);
            assert_eq!(&to.next_record().unwrap().unwrap()[..], b"hello");
        }
    }

    #[test]
    fn peer_without_the_secret_is_rejected_on_either_side() {
        let (right, wrong) = (secret("a secret of the cluster"), secret("another secret, as long"));
        let (dial, hello) = ClientHandshake::new(&right, [1; 32]);
        let (_, forged_hello) = ServerHandshake::new(&wrong, [2; 32], &hello).unwrap();
        assert_eq!(dial.on_server_hello(&forged_hello).unwrap_err(), HandshakeError::WrongSecret);
        let (answer, _) = ServerHandshake::new(&right, [2; 32], &hello).unwrap();
        assert_eq!(answer.on_proof(&[0; 32]).unwrap_err(), HandshakeError::WrongSecret);
    }

    #[test]
    fn replayed_handshake_fails_with_a_new_nonce() {
        let secret = secret("a secret of the cluster");
        let (dial, hello) = ClientHandshake::new(&secret, [1; 32]);
        let (answer, server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        let (proof, _) = dial.on_server_hello(&server).unwrap();
        assert!(answer.on_proof(&proof).is_ok());
        let (again, _) = ServerHandshake::new(&secret, [3; 32], &hello).unwrap();
        assert_eq!(again.on_proof(&proof).unwrap_err(), HandshakeError::WrongSecret);
        let (later, _) = ClientHandshake::new(&secret, [4; 32]);
        assert_eq!(later.on_server_hello(&server).unwrap_err(), HandshakeError::WrongSecret);
    }

    #[test]
    fn reflected_proof_is_rejected() {
        let secret = secret("a secret of the cluster");
        let (_, hello) = ClientHandshake::new(&secret, [1; 32]);
        let (answer, server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        let reflected = server[SERVER_HELLO_BYTES - PROOF_BYTES..].try_into().unwrap();
        assert_eq!(answer.on_proof(&reflected).unwrap_err(), HandshakeError::WrongSecret);
    }

    #[test]
    fn any_flipped_bit_of_the_hellos_is_rejected() {
        let secret = secret("a secret of the cluster");
        for byte in 0..CLIENT_HELLO_BYTES {
            let (dial, mut hello) = ClientHandshake::new(&secret, [1; 32]);
            hello[byte] ^= 1;
            let refused = match ServerHandshake::new(&secret, [2; 32], &hello) {
                Ok((_, server)) => dial.on_server_hello(&server).is_err(),
                Err(_) => true,
            };
            assert!(refused, "byte {byte}");
        }
        for byte in 0..SERVER_HELLO_BYTES {
            let (dial, hello) = ClientHandshake::new(&secret, [1; 32]);
            let (_, mut server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
            server[byte] ^= 1;
            assert!(dial.on_server_hello(&server).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn missing_common_version_differs_from_a_wrong_secret() {
        let secret = secret("a secret of the cluster");
        let (_, mut hello) = ClientHandshake::new(&secret, [1; 32]);
        hello[4..6].copy_from_slice(&[2, 3]);
        let (answer, server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        assert_eq!(server[4], 0);
        assert_eq!(answer.on_proof(&[0; 32]).unwrap_err(), HandshakeError::NoCommonVersion { lowest: 2, highest: 3 });
        // An edge with that later version receives an authenticated rejection.
        let later = ClientHandshake { secret, hello };
        assert_eq!(
            later.on_server_hello(&server).unwrap_err(),
            HandshakeError::NoCommonVersion { lowest: 0, highest: 0 }
        );
    }

    #[test]
    fn peers_learn_each_others_features_and_an_old_peer_has_none() {
        let secret = secret("a secret of the cluster");
        let (dial, hello) = ClientHandshake::new(&secret, [1; 32]);
        let (answer, server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        let (proof, edge) = dial.on_server_hello(&server).unwrap();
        assert!(edge.peer_features.has_witness() && answer.on_proof(&proof).unwrap().peer_features.has_witness());
        // An old edge sends a zero, and does not read the byte of the server.
        let (_, mut old_hello) = ClientHandshake::new(&secret, [1; 32]);
        old_hello[CLIENT_FEATURES_AT] = 0;
        let (answer, server) = ServerHandshake::new(&secret, [2; 32], &old_hello).unwrap();
        let old = ClientHandshake { secret: secret.clone(), hello: old_hello };
        let (proof, _) = old.on_server_hello(&server).unwrap();
        assert!(!answer.on_proof(&proof).unwrap().peer_features.has_witness());
        // An old origin sends a zero.
        let (dial, hello) = ClientHandshake::new(&secret, [1; 32]);
        let (_, mut server) = ServerHandshake::new(&secret, [2; 32], &hello).unwrap();
        server[SERVER_FEATURES_AT] = 0;
        let end = HEADER_BYTES + NONCE_BYTES;
        let proof = secret.proof(SERVER, &hello, &server[..end]);
        server[end..].copy_from_slice(proof.as_ref());
        assert!(!dial.on_server_hello(&server).unwrap().1.peer_features.has_witness());
    }

    #[test]
    fn short_secret_is_rejected_and_debug_does_not_print_it() {
        assert_eq!(ClusterSecret::new(b"short").unwrap_err(), SecretError { bytes: 5 });
        assert_eq!(format!("{:?}", secret("a secret of the cluster")), "ClusterSecret(…)");
    }
}
