//! The secret from which a node derives the keys that sign what it hands out: the cluster secret,
//! so that every node of a cluster accepts it, else a random secret of this node.
//!
//! Must not know what is signed.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use headwater_program::private_file::is_disk_full;
use ring::{hkdf, hmac};

/// A secret of at least 16 bytes. `Debug` hides it.
pub struct NodeSecret(Vec<u8>);

impl std::fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeSecret(…)")
    }
}

/// The file of the secret cannot be read or created.
#[derive(Debug, thiserror::Error)]
#[error("could not read or create the secret of the node, {}", path.display())]
pub struct NodeSecretError {
    path: PathBuf,
    source: io::Error,
}

impl NodeSecret {
    /// Reads the file of the cluster secret, else a file in the data folder, which is created if it
    /// does not exist. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read or created.
    pub fn load(cluster_secret: Option<&Path>, data_dir: &Path) -> Result<Self, NodeSecretError> {
        let own = data_dir.join(FILE_NAME);
        let (path, secret) = match cluster_secret {
            Some(path) => (path.to_owned(), std::fs::read(path)),
            None => {
                let secret = read_or_create(&own);
                (own, secret)
            }
        };
        secret.map(|secret| Self::new(secret.trim_ascii())).map_err(|source| NodeSecretError { path, source })
    }

    /// A secret of at least 16 bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(secret.to_vec())
    }

    /// Derives the key for one purpose (HKDF-SHA256, RFC 5869). Two purposes have independent keys.
    pub fn hmac_key(&self, purpose: &str) -> hmac::Key {
        let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose.as_bytes()).extract(&self.0);
        let mut key = [0; 32];
        pseudo_random
            .expand(&[b"sign"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("HKDF-SHA256 can output 32 bytes");
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }
}

fn read_or_create(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Ok(secret) if secret.trim_ascii().len() >= MIN_SECRET_BYTES => return Ok(secret),
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
const MIN_SECRET_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn tag(secret: &NodeSecret, purpose: &str) -> Vec<u8> {
        hmac::sign(&secret.hmac_key(purpose), b"x").as_ref().to_vec()
    }

    #[test]
    fn node_has_its_own_secret_and_a_cluster_shares_one() {
        let folder = std::env::temp_dir().join(format!("headwater-node-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = NodeSecret::load(None, &folder).unwrap();
        assert_eq!(tag(&NodeSecret::load(None, &folder).unwrap(), "a"), tag(&own, "a"), "it outlives the process");
        let mode = std::fs::metadata(folder.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let file = folder.join("relay-secret");
        std::fs::write(&file, "what all nodes share\n").unwrap();
        let shared = NodeSecret::load(Some(&file), &folder).unwrap();
        assert_eq!(tag(&shared, "a"), tag(&NodeSecret::new(b"what all nodes share"), "a"));
        assert_ne!(tag(&shared, "a"), tag(&own, "a"));
        assert_eq!(format!("{shared:?}"), "NodeSecret(…)");
        std::fs::write(folder.join(FILE_NAME), "").unwrap();
        assert_ne!(tag(&NodeSecret::load(None, &folder).unwrap(), "a"), tag(&NodeSecret::new(b""), "a"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(NodeSecret::load(Some(&file), &folder).is_err());
    }

    #[test]
    fn keys_of_two_purposes_differ() {
        let secret = NodeSecret::new(b"what all nodes share");
        assert_ne!(tag(&secret, "a"), tag(&secret, "b"));
    }
}
