//! The key by which a command on this machine proves that the node's operator runs it: who can read
//! the engine's data folder is an administrator. It is a new one at each start.

use std::path::Path;
use std::sync::Arc;

use headwater_api::control::LOCAL_KEY_FILE;
use headwater_api::documents::{ADMINISTRATOR, Rights, UserDocument};
use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_program::private_file::write_private;
use headwater_program::token;
use ring::hmac;

/// Recognizes the key without storing it. `Debug` does not show it.
#[derive(Clone)]
pub struct LocalKey {
    verifier: hmac::Key,
    tag: hmac::Tag,
}

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey(…)")
    }
}

impl LocalKey {
    /// Writes a new key into the data folder. Without it, for example because the disk is full, the
    /// node serves, and commands on this machine report that they are refused.
    pub fn create(data_dir: &Path) -> Option<Self> {
        let key = token::generate();
        match write_private(data_dir, LOCAL_KEY_FILE, key.reveal()) {
            Ok(_) => Some(Self::new(&key)),
            Err(e) => {
                log::warn!(err:% = Chain(&e); "could not write {LOCAL_KEY_FILE}, commands on this machine will be refused");
                None
            }
        }
    }

    fn new(key: &Secret) -> Self {
        let verifier = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let tag = hmac::sign(&verifier, key.reveal().as_bytes());
        Self { verifier, tag }
    }

    /// The user that the holder of the key is; `None` for another key. In constant time.
    pub(super) fn user(&self, presented: &str) -> Option<Arc<UserDocument>> {
        hmac::verify(&self.verifier, presented.as_bytes(), self.tag.as_ref()).ok()?;
        Some(Arc::new(UserDocument {
            name: ADMINISTRATOR.to_owned(),
            password_hash: Secret::new(""),
            rights: Rights::Administer,
            created_at_ms: 0,
            ended_sessions: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_in_the_file_makes_an_administrator() {
        let folder = std::env::temp_dir().join(format!("headwater-local-key-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let key = LocalKey::create(&folder).unwrap();
        let text = std::fs::read_to_string(folder.join(LOCAL_KEY_FILE)).unwrap();
        assert_eq!(key.user(text.trim()).unwrap().rights, Rights::Administer);
        for wrong in ["", "x", &text, &text[1..]] {
            assert!(key.user(wrong).is_none(), "{wrong:?}");
        }
        let next = LocalKey::create(&folder).unwrap();
        assert!(next.user(text.trim()).is_none(), "the key of an earlier start");
        assert!(!format!("{key:?}").contains(text.trim()));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(LocalKey::create(&folder).is_none());
    }
}
