//! The settings of an app, as its administrator reads and writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::IpNetwork;
use crate::documents::{AppDocument, Policy, StreamPolicy};
use crate::secret::{self, Secret};

/// The settings of an app. To change them, read them, change the answer and write it back: the
/// revision in it detects that somebody else has changed them in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppSettings {
    /// Name of the app.
    pub name: String,
    /// Number of changes since the app was created; 0 in a request creates the app.
    pub revision: u64,
    /// What a publisher must present.
    pub publish: Policy,
    /// What a viewer must present.
    pub play: Policy,
    /// Policies of single streams by stream id, where they differ from those of the app; at most
    /// 1,000.
    pub streams: BTreeMap<String, StreamPolicy>,
    /// URL of the JWK set with the RS256 and ES256 keys of the policy `jwt`.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    #[serde(deserialize_with = "required")]
    pub jwks_url: Option<String>,
    /// True if the host of `jwks_url` may have a private address, and the URL may be `http`.
    pub jwks_private: bool,
    /// Networks that may publish, such as `10.0.0.0/8`; empty: all. At most 256.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub publish_networks: Vec<IpNetwork>,
    /// Origins whose pages may embed the player and fetch media with credentials, such as
    /// `https://www.example.com`; empty: all. At most 64.
    pub allowed_origins: Vec<String>,
    /// True if a session ends when the token that admitted it expires.
    pub end_at_expiry: bool,
    /// The publish key of the policy `key`, 8 to 256 letters, digits, `-`, `_`, `.` and `~`. In a
    /// request: null removes it; if it is absent, it remains.
    #[serde(default, deserialize_with = "nullable", serialize_with = "store_nested")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub publish_key: Option<Option<Secret>>,
    /// The secret of the policy `hash`, 8 to 256 bytes. Only in requests: null removes it; if it is
    /// absent, it remains.
    #[serde(
        default,
        deserialize_with = "nullable",
        serialize_with = "store_nested",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    pub hash_secret: Option<Option<Secret>>,
    /// The HS256 key of the policy `jwt`, 32 to 256 bytes. Only in requests: null removes it; if it
    /// is absent, it remains.
    #[serde(
        default,
        deserialize_with = "nullable",
        serialize_with = "store_nested",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, write_only))]
    pub jwt_key: Option<Option<Secret>>,
    /// True if there is a `hash_secret`; ignored in requests.
    #[serde(default)]
    pub has_hash_secret: bool,
    /// True if there is a `jwt_key`; ignored in requests.
    #[serde(default)]
    pub has_jwt_key: bool,
}

impl From<&AppDocument> for AppSettings {
    fn from(app: &AppDocument) -> Self {
        Self {
            name: app.name.clone(),
            revision: app.revision,
            publish: app.publish,
            play: app.play,
            streams: app.streams.clone(),
            jwks_url: app.jwks_url.clone(),
            jwks_private: app.jwks_private,
            publish_networks: app.publish_networks.clone(),
            allowed_origins: app.allowed_origins.clone(),
            end_at_expiry: app.end_at_expiry,
            publish_key: Some(app.publish_key.clone()),
            hash_secret: None,
            jwt_key: None,
            has_hash_secret: app.hash_secret.is_some(),
            has_jwt_key: app.jwt_key.is_some(),
        }
    }
}

impl AppSettings {
    /// The document that these settings make of `current`, whose secrets remain where the settings
    /// have none. Its revision is that of the settings.
    pub fn apply_to(self, current: &AppDocument) -> AppDocument {
        let secret = |new: Option<Option<Secret>>, old: &Option<Secret>| new.unwrap_or_else(|| old.clone());
        AppDocument {
            name: self.name,
            revision: self.revision,
            publish: self.publish,
            play: self.play,
            streams: self.streams,
            publish_key: secret(self.publish_key, &current.publish_key),
            hash_secret: secret(self.hash_secret, &current.hash_secret),
            jwt_key: secret(self.jwt_key, &current.jwt_key),
            jwks_url: self.jwks_url,
            jwks_private: self.jwks_private,
            publish_networks: self.publish_networks,
            allowed_origins: self.allowed_origins,
            end_at_expiry: self.end_at_expiry,
        }
    }
}

/// The answer to a change of settings that somebody else has changed in between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppConflict {
    /// Always `app_changed`.
    pub error: String,
    /// One sentence for people.
    pub message: String,
    /// The current settings.
    pub current: AppSettings,
}

/// A field that must be present, although it may be null.
fn required<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    T::deserialize(d)
}

/// A field whose null differs from its absence.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

fn store_nested<S: Serializer>(secret: &Option<Option<Secret>>, s: S) -> Result<S::Ok, S::Error> {
    secret::store_option(secret.as_ref().unwrap_or(&None), s)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app() -> AppDocument {
        AppDocument {
            revision: 3,
            publish: Policy::Key,
            publish_key: Some(Secret::new("publish-key")),
            hash_secret: Some(Secret::new("hash-secret")),
            ..AppDocument::open("live")
        }
    }

    #[test]
    fn settings_that_are_read_and_written_back_change_nothing() {
        let text = serde_json::to_string(&AppSettings::from(&app())).unwrap();
        let settings: AppSettings = serde_json::from_str(&text).unwrap();
        assert_eq!(settings.apply_to(&app()), app());
    }

    #[test]
    fn only_the_publish_key_is_shown() {
        let shown = serde_json::to_value(AppSettings::from(&app())).unwrap();
        assert_eq!(shown["publish_key"], "publish-key");
        assert_eq!((&shown["has_hash_secret"], &shown["has_jwt_key"]), (&json!(true), &json!(false)));
        assert!(shown.get("hash_secret").is_none() && shown.get("jwt_key").is_none(), "{shown}");
        assert!(!shown.to_string().contains("hash-secret"), "{shown}");
    }

    #[test]
    fn secret_is_kept_if_absent_removed_if_null_and_replaced_otherwise() {
        let check = |change: serde_json::Value, expected: Option<&str>| {
            let mut settings = serde_json::to_value(AppSettings::from(&app())).unwrap();
            settings.as_object_mut().unwrap().remove("publish_key");
            settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let changed = serde_json::from_value::<AppSettings>(settings).unwrap().apply_to(&app());
            assert_eq!(changed.hash_secret.as_ref().map(Secret::reveal), expected);
            assert_eq!(changed.publish_key, app().publish_key);
        };
        check(json!({}), Some("hash-secret"));
        check(json!({ "hash_secret": null }), None);
        check(json!({ "hash_secret": "another one" }), Some("another one"));
    }

    #[test]
    fn new_secret_is_sent_and_one_that_is_removed_is_sent_as_null() {
        let mut settings = AppSettings::from(&app());
        settings.jwt_key = Some(Some(Secret::new("new JWT key")));
        settings.hash_secret = Some(None);
        let text = serde_json::to_string(&settings).unwrap();
        let changed = serde_json::from_str::<AppSettings>(&text).unwrap().apply_to(&app());
        assert_eq!(changed.jwt_key.as_ref().map(Secret::reveal), Some("new JWT key"));
        assert_eq!(changed.hash_secret, None);
    }

    #[test]
    fn missing_and_unknown_fields_are_refused() {
        let whole = serde_json::to_value(AppSettings::from(&app())).unwrap();
        for required in ["name", "revision", "publish", "play", "streams", "jwks_url", "publish_networks"] {
            let mut settings = whole.clone();
            settings.as_object_mut().unwrap().remove(required);
            let error = serde_json::from_value::<AppSettings>(settings).unwrap_err();
            assert_eq!(error.to_string(), format!("missing field `{required}`"));
        }
        let mut settings = whole;
        settings["pubish_key"] = json!("typing error");
        assert!(serde_json::from_value::<AppSettings>(settings).is_err());
    }
}
