//! What an app's document may contain. The one place for its limits; who stores an app checks them
//! first.
//!
//! Must not know where the document comes from.

use super::{AppDocument, Policy};
use crate::name::{self, NameError};
use crate::secret::Secret;

/// Maximum number of streams with policies of their own per app.
pub const MAX_STREAM_POLICIES: usize = 1_000;
/// Maximum number of networks that may publish.
pub const MAX_PUBLISH_NETWORKS: usize = 256;
/// Maximum number of allowed origins.
pub const MAX_ALLOWED_ORIGINS: usize = 64;
/// Maximum length of an origin, in bytes: a DNS name of 253 bytes, scheme and port.
pub const MAX_ORIGIN_BYTES: usize = 267;
/// Maximum length of a JWKS URL, in bytes.
pub const MAX_JWKS_URL_BYTES: usize = 2_048;
/// Minimum length of a publish key and a hash secret, in bytes.
pub const MIN_KEY_BYTES: usize = 8;
/// Minimum length of an HS256 key, in bytes (RFC 7518 §3.2).
pub const MIN_JWT_KEY_BYTES: usize = 32;
/// Maximum length of each key and secret, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// First parts of paths that belong to no app.
const RESERVED_NAMES: [&str; 3] = ["rest", "assets", "metrics"];

/// The rule that an app's document violates. The text is for the administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApp {
    /// The name of the app violates the rule for names.
    #[error("the name is invalid: {0}")]
    Name(NameError),
    /// The name of the app begins paths of the server's own.
    #[error("the name {0} is reserved")]
    ReservedName(&'static str),
    /// The id of a stream with policies of its own violates the rule for names.
    #[error("the stream id {id:?} is invalid: {reason}")]
    StreamId {
        /// The id, shortened.
        id: String,
        /// The rule.
        reason: NameError,
    },
    /// A list is too long.
    #[error("{field} has {len} entries; at most {limit} are allowed")]
    TooMany {
        /// Name of the field.
        field: &'static str,
        /// Number of entries.
        len: usize,
        /// Maximum number of entries.
        limit: usize,
    },
    /// A secret is too short or too long.
    #[error("{field} has {len} bytes; {min} to {max} are allowed")]
    KeyLength {
        /// Name of the field.
        field: &'static str,
        /// Length seen, in bytes.
        len: usize,
        /// Minimum length, in bytes.
        min: usize,
        /// Maximum length, in bytes.
        max: usize,
    },
    /// A publish key contains a character that a URL or an encoder would change.
    #[error("publish_key may contain only letters, digits, '-', '_', '.' and '~'")]
    KeyCharacter,
    /// The JWKS URL is no absolute URL of an allowed scheme.
    #[error("jwks_url must be an https URL (or, with jwks_private, http) of at most {MAX_JWKS_URL_BYTES} bytes")]
    JwksUrl,
    /// An origin is not in the form that browsers send.
    #[error("{origin:?} is not an origin, such as \"https://www.example.com\" or \"http://localhost:8080\"")]
    Origin {
        /// The origin, shortened.
        origin: String,
    },
    /// A policy has no key: it would admit nobody.
    #[error("the policy \"{policy}\" needs {key}; use \"closed\" to admit nobody")]
    MissingKey {
        /// Name of the policy.
        policy: &'static str,
        /// The field that is missing.
        key: &'static str,
    },
}

impl AppDocument {
    /// Checks every limit, and that each policy has the key that it needs.
    ///
    /// # Errors
    /// The first rule that the app violates.
    pub fn validate(&self) -> Result<(), InvalidApp> {
        check(self)
    }
}

fn check(app: &AppDocument) -> Result<(), InvalidApp> {
    name::check_app(&app.name).map_err(InvalidApp::Name)?;
    if let Some(name) = RESERVED_NAMES.into_iter().find(|name| *name == app.name) {
        return Err(InvalidApp::ReservedName(name));
    }
    check_count("streams", app.streams.len(), MAX_STREAM_POLICIES)?;
    check_count("publish_networks", app.publish_networks.len(), MAX_PUBLISH_NETWORKS)?;
    check_count("allowed_origins", app.allowed_origins.len(), MAX_ALLOWED_ORIGINS)?;
    for id in app.streams.keys() {
        name::check_stream_id(id).map_err(|reason| InvalidApp::StreamId { id: shortened(id), reason })?;
    }
    check_key("publish_key", app.publish_key.as_ref(), MIN_KEY_BYTES)?;
    check_key("hash_secret", app.hash_secret.as_ref(), MIN_KEY_BYTES)?;
    check_key("jwt_key", app.jwt_key.as_ref(), MIN_JWT_KEY_BYTES)?;
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if app.publish_key.as_ref().is_some_and(|key| !key.reveal().bytes().all(is_unreserved)) {
        return Err(InvalidApp::KeyCharacter);
    }
    if app.jwks_url.as_ref().is_some_and(|url| !is_jwks_url(url, app.jwks_private)) {
        return Err(InvalidApp::JwksUrl);
    }
    if let Some(origin) = app.allowed_origins.iter().find(|origin| !is_origin(origin)) {
        return Err(InvalidApp::Origin { origin: shortened(origin) });
    }
    check_policies(app)
}

fn check_count(field: &'static str, len: usize, limit: usize) -> Result<(), InvalidApp> {
    if len > limit { Err(InvalidApp::TooMany { field, len, limit }) } else { Ok(()) }
}

fn check_key(field: &'static str, key: Option<&Secret>, min: usize) -> Result<(), InvalidApp> {
    match key.map(|key| key.reveal().len()) {
        Some(len) if !(min..=MAX_KEY_BYTES).contains(&len) => {
            Err(InvalidApp::KeyLength { field, len, min, max: MAX_KEY_BYTES })
        }
        _ => Ok(()),
    }
}

/// Every policy in use has its key.
fn check_policies(app: &AppDocument) -> Result<(), InvalidApp> {
    let of_streams = app.streams.values().flat_map(|stream| [stream.publish, stream.play]).flatten();
    for policy in [app.publish, app.play].into_iter().chain(of_streams) {
        let (key, is_present) = match policy {
            Policy::Key => ("publish_key", app.publish_key.is_some()),
            Policy::Hash => ("hash_secret", app.hash_secret.is_some()),
            Policy::Jwt => ("jwt_key or jwks_url", app.jwt_key.is_some() || app.jwks_url.is_some()),
            Policy::Open | Policy::OneTimeToken | Policy::Closed => continue,
        };
        if !is_present {
            return Err(InvalidApp::MissingKey { policy: policy.as_str(), key });
        }
    }
    Ok(())
}

/// `https://HOST…`, or with `allow_http` also `http://HOST…`, without user, fragment or spaces.
fn is_jwks_url(url: &str, allow_http: bool) -> bool {
    let http = || if allow_http { url.strip_prefix("http://") } else { None };
    let Some(rest) = url.strip_prefix("https://").or_else(http) else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    url.len() <= MAX_JWKS_URL_BYTES
        && is_host_and_port(authority)
        && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`'))
}

/// The form that browsers send in the header `Origin` (RFC 6454 §6.2): scheme, host in lower case,
/// and a port if it is not the scheme's.
fn is_origin(origin: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    origin.len() <= MAX_ORIGIN_BYTES
        && rest.is_some_and(|host| is_host_and_port(host) && !host.bytes().any(|b| b.is_ascii_uppercase()))
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn is_host_and_port(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address.parse::<std::net::Ipv6Addr>().is_ok(), None),
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), Some(port.strip_prefix(':'))),
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(Some(port))));
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            (!host.is_empty() && host.bytes().all(legal), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    is_host && port.is_none_or(|port| port.is_some_and(is_port))
}

/// The beginning of a value that may be of any length.
fn shortened(value: &str) -> String {
    value.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Maximum number of characters of a rejected value that an error repeats.
const MAX_SHOWN_CHARS: usize = 80;

#[cfg(test)]
#[path = "app_limits_test.rs"]
mod tests;
