//! A secret that cannot be printed by accident.

use std::fmt;

use serde::{Deserialize, Serializer};

/// A password, key or connection string. It can be deserialized and compared, but has no `Display`,
/// and `Debug` hides it.
///
/// It has no `Serialize` either: a document that must store a secret opts in field by field, with
/// [`store`].
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that uses it. Never log or display the result.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Serializes a secret in clear text, for documents that are stored in the registry and shown
/// nowhere.
///
/// # Errors
/// Those of the serializer.
pub fn store<S: Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&secret.0)
}

/// [`store`] for an optional secret.
///
/// # Errors
/// Those of the serializer.
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
    fn debug_output_hides_a_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
