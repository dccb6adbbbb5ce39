//! Who may publish, watch and operate: one question for every protocol.
//!
//! ```text
//!   gateway, http --app or stream, credentials--> Access --> allowed, or an AccessError
//!                                                    |
//!                                                   apps <-- registry
//! ```
//!
//! RULE: knows the registry and no protocol. A gateway passes what the client presented and gets a
//! decision, which it reports in its protocol's own way.

mod apps;
mod credentials;
mod decision;
mod issued_token;
mod token_digest;

pub use apps::Apps;
pub use credentials::Credentials;
pub use decision::{Access, AccessError};
pub use issued_token::{claimed_expiry, sign_jwt};
pub use token_digest::token_digest;
