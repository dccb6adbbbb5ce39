//! The decision whether a client may use an app or a stream.
//!
//! Every app is open: the only reason for a refusal is that it does not exist. Policies per app
//! belong here, so that they hold for every protocol.

use headwater_api::StreamName;

use crate::access::{Apps, Credentials};

/// Why a client is refused. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The app does not exist.
    #[error("There is no app of this name.")]
    UnknownApp,
}

/// Answers for every gateway; clones share the set of apps.
#[derive(Debug, Clone)]
pub struct Access {
    apps: Apps,
}

impl Access {
    /// Decides by `apps`.
    pub fn new(apps: Apps) -> Self {
        Self { apps }
    }

    /// The names of all apps, sorted.
    pub fn app_names(&self) -> Vec<String> {
        self.apps.names()
    }

    /// Checks that an app exists, before a client names a stream.
    ///
    /// # Errors
    /// [`AccessError::UnknownApp`].
    pub fn check_app(&self, app: &str) -> Result<(), AccessError> {
        if self.apps.contains(app) { Ok(()) } else { Err(AccessError::UnknownApp) }
    }

    /// Checks that a client may publish `stream`.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn check_publish(&self, stream: &StreamName, _credentials: &Credentials<'_>) -> Result<(), AccessError> {
        self.check_app(stream.app())
    }

    /// Checks that a client may watch `stream`.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn check_play(&self, stream: &StreamName, _credentials: &Credentials<'_>) -> Result<(), AccessError> {
        self.check_app(stream.app())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_existing_app_may_be_used() {
        let access = Access::new(Apps::new(["live".to_owned()]));
        let known = StreamName::parse("live/a").unwrap();
        let unknown = StreamName::parse("other/a").unwrap();
        let nothing = Credentials::default();
        assert_eq!(access.check_app("live"), Ok(()));
        assert_eq!(access.check_app("other"), Err(AccessError::UnknownApp));
        assert_eq!(access.check_publish(&known, &nothing), Ok(()));
        assert_eq!(access.check_publish(&unknown, &nothing), Err(AccessError::UnknownApp));
        assert_eq!(access.check_play(&known, &nothing), Ok(()));
        assert_eq!(access.check_play(&unknown, &nothing), Err(AccessError::UnknownApp));
    }
}
