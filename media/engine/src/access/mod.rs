//! Who may publish, watch and operate: one question for every protocol.
//!
//! ```text
//!   gateway, http --action, stream, credentials--> decision --> Grounds, or an AccessError
//!                                                     |
//!                               app_rules, jwt, secret_check
//!                                     '--jwks: keys of an issuer, cached
//!                                                     |
//!                            policies <-- policy_reader <-- registry, or the copy of a file
//! ```
//!
//! What viewers of HLS get instead of a token: `play_session` for playlists, `url_signature` for
//! segments.
//!
//! RULE: knows the registry and no protocol. A gateway passes what the client presented and gets a
//! decision, which it reports in its protocol's own way.

mod app_rules;
mod credentials;
mod decision;
mod error;
mod grounds;
mod issued_token;
mod jwk_set;
mod jwks;
mod jwks_client;
mod jwt;
mod jwt_crypto;
mod permits;
mod play_session;
mod policies;
mod policy_file;
mod policy_reader;
mod request;
mod secret_check;
mod short_tag;
mod signing_keys;
#[cfg(test)]
pub(crate) mod test_tokens;
mod throttle;
mod token_digest;
mod url_signature;

pub use credentials::Credentials;
pub use decision::{Access, AllowedOrigins, UrlAccess};
pub use error::AccessError;
pub use grounds::Grounds;
pub use issued_token::{claimed_expiry, sign_jwt};
pub use jwt::{MAX_TOKEN_BYTES, is_signed_with};
pub use permits::Permit;
pub use policy_reader::PolicyReader;
pub use request::AccessRequest;
pub use token_digest::token_digest;
pub use url_signature::UrlSignature;
