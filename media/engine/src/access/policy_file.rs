//! The policies as they are stored, and their copy in the data folder: an engine that starts while
//! a shared registry is unreachable decides by it. The copy contains keys, and only the node's user
//! can read it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use headwater_api::documents::{AppDocument, Revocation};
use headwater_program::private_file::write_private;
use serde::{Deserialize, Serialize};

/// What the registry contains about access.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct StoredPolicies {
    /// All apps, sorted by name.
    pub(super) apps: Vec<AppDocument>,
    /// Digests of revoked tokens, and the Unix time in milliseconds until which each must be known.
    pub(super) revoked: BTreeMap<String, u64>,
}

impl StoredPolicies {
    /// Reads the copy. Blocking.
    ///
    /// # Errors
    /// If it does not exist, cannot be read, or contains something else.
    pub(super) fn read(data_dir: &Path) -> io::Result<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join(FILE_NAME))?).map_err(io::Error::other)
    }

    /// Replaces the copy. Blocking.
    ///
    /// # Errors
    /// If it cannot be written; the old one then remains.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        write_private(data_dir, FILE_NAME, &serde_json::to_string(self)?).map(drop)
    }

    /// Adds revocations, and removes those of tokens whose last session has ended.
    pub(super) fn revoke(&mut self, tokens: Vec<Revocation>, now_ms: u64) {
        self.revoked.extend(tokens.into_iter().map(|token| (token.digest, token.kept_until_ms)));
        self.revoked.retain(|_, kept_until_ms| now_ms < *kept_until_ms);
    }
}

/// In the data folder of a node of a cluster.
const FILE_NAME: &str = "access.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocation_is_remembered_until_the_last_session_of_the_token_has_ended() {
        let revocation = |digest: &str, kept_until_ms| Revocation { digest: digest.to_owned(), kept_until_ms };
        let mut stored = StoredPolicies::default();
        stored.revoke(vec![revocation("a", 10), revocation("b", 20)], 9);
        assert_eq!(stored.revoked.len(), 2);
        stored.revoke(Vec::new(), 10);
        assert_eq!(stored.revoked, [("b".to_owned(), 20)].into());
    }
}
