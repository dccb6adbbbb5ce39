//! A secret that cannot be printed by accident.

use std::fmt;

use serde::{Deserialize, Serializer};

/// A password, key or connection string. It reads from text and compares, but has no `Display`, and `Debug` hides it.
///
/// It has no `Serialize` either: a document that must store one says so field by field, with [`store`].
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that uses it. Never log or show what this gives.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Writes a secret in the clear, for documents that go into the registry and nowhere else.
///
/// # Errors
/// Those of the serialiser.
pub fn store<S: Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&secret.0)
}

/// [`store`] for a secret that may be absent.
///
/// # Errors
/// Those of the serialiser.
pub fn store_option<S: Serializer>(secret: &Option<Secret>, s: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => s.serialize_some(&secret.0),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
