//! The key that signs sessions: derived from the cluster secret, so that a session is valid on
//! every node, or from a secret of this node.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use headwater_program::private_file::is_disk_full;
use ring::{hkdf, hmac};

/// The HMAC key of session cookies.
#[derive(Clone)]
pub struct SessionKey(hmac::Key);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// The file of the session key cannot be read or created.
#[derive(Debug, thiserror::Error)]
#[error("could not read or create the session key {}", path.display())]
pub struct KeyError {
    path: PathBuf,
    source: io::Error,
}

impl SessionKey {
    /// Derives the key from the file of the cluster secret, else from a file in the data folder,
    /// which is created if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be read or created.
    pub fn load(cluster_secret: Option<&Path>, data_dir: &Path) -> Result<Self, KeyError> {
        let own = data_dir.join(FILE_NAME);
        let (path, secret) = match cluster_secret {
            Some(path) => (path.to_owned(), std::fs::read(path)),
            None => {
                let secret = read_or_create(&own);
                (own, secret)
            }
        };
        secret.map(|secret| Self::from_secret(secret.trim_ascii())).map_err(|source| KeyError { path, source })
    }

    /// Derives the key from a secret of at least 16 bytes (HKDF-SHA256, RFC 5869).
    pub(in crate::http) fn from_secret(secret: &[u8]) -> Self {
        let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, b"headwater session 1").extract(secret);
        let mut key = [0; 32];
        pseudo_random
            .expand(&[b"sign"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("HKDF-SHA256 can output 32 bytes");
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    pub(super) fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, text)
    }

    /// Verifies a signature in constant time.
    pub(super) fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, text, tag).is_ok()
    }
}

fn read_or_create(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Ok(secret) if secret.trim_ascii().len() >= 16 => return Ok(secret),
        // Replace a truncated file; this only ends the existing sessions.
        Ok(_) => std::fs::remove_file(path)?,
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Err(_) => {}
    }
    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        // A truncated file is replaced at the next start.
        Err(err) if is_disk_full(&err) => log::warn!(err:%; "disk is full, sessions end when the engine stops"),
        written => written?,
    }
    Ok(text.into_bytes())
}

/// In the data folder of a node without a cluster.
const FILE_NAME: &str = "session-key";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn node_has_its_own_key_and_a_cluster_shares_one() {
        let folder = std::env::temp_dir().join(format!("headwater-session-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let tag = |key: &SessionKey| key.sign(b"x").as_ref().to_vec();
        let own = SessionKey::load(None, &folder).unwrap();
        assert_eq!(tag(&SessionKey::load(None, &folder).unwrap()), tag(&own), "it outlives the process");
        let mode = std::fs::metadata(folder.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = folder.join("relay-secret");
        std::fs::write(&secret, "what all nodes share\n").unwrap();
        let shared = SessionKey::load(Some(&secret), &folder).unwrap();
        assert_eq!(tag(&shared), tag(&SessionKey::from_secret(b"what all nodes share")));
        assert_ne!(tag(&shared), tag(&own));
        assert_eq!(format!("{shared:?}"), "SessionKey(…)");
        std::fs::write(folder.join(FILE_NAME), "").unwrap();
        assert_ne!(tag(&SessionKey::load(None, &folder).unwrap()), tag(&SessionKey::from_secret(b"")));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(SessionKey::load(Some(&secret), &folder).is_err());
    }
}
