//! The rules of all apps and the revoked tokens, as last read from the registry. A value: it is
//! replaced as a whole.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use headwater_api::documents::AppDocument;

use super::app_rules::AppRules;
use super::error::AccessError;
use super::policy_file::StoredPolicies;
use super::signing_keys::SigningKeys;
use super::token_digest::TokenId;

/// What decides about every request.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// `None` until they have been read once.
    apps: Option<BTreeMap<String, Arc<AppRules>>>,
    revoked: HashSet<TokenId>,
}

impl Policies {
    /// Prepares the rules of these apps. Those of an app that has not changed are shared with
    /// `previous`.
    pub(super) fn new(previous: &Self, stored: &StoredPolicies, keys: &SigningKeys) -> Self {
        let rules = |app: &AppDocument| {
            let known = previous.app(&app.name).ok();
            let rules = match known.filter(|known| known.document() == app) {
                Some(unchanged) => Arc::clone(unchanged),
                None => Arc::new(AppRules::new(app.clone(), known.map(Arc::as_ref), keys)),
            };
            (app.name.clone(), rules)
        };
        let revoked = stored.revoked.keys().filter_map(|digest| TokenId::from_digest(digest)).collect();
        Self { apps: Some(stored.apps.iter().map(rules).collect()), revoked }
    }

    /// The rules of an app.
    ///
    /// # Errors
    /// If it does not exist, or no policies are known.
    pub(super) fn app(&self, name: &str) -> Result<&Arc<AppRules>, AccessError> {
        let apps = self.apps.as_ref().ok_or(AccessError::PoliciesUnavailable)?;
        apps.get(name).ok_or(AccessError::UnknownApp)
    }

    /// The names of all apps, sorted.
    pub(super) fn app_names(&self) -> Vec<String> {
        self.apps.iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// True if sessions of any app end when their token expires.
    pub(super) fn ends_sessions_at_expiry(&self) -> bool {
        self.apps.iter().flat_map(BTreeMap::values).any(|rules| rules.document().end_at_expiry)
    }

    /// True if the token was revoked.
    pub(super) fn is_revoked(&self, token: &TokenId) -> bool {
        self.revoked.contains(token)
    }
}
