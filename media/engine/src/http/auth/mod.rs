//! Authentication and authorization: passwords, sessions, and the middleware in front of every
//! request that changes something.
//!
//! ```text
//!   Basic (curl) -----> accounts --argon2id--> user --+
//!   Bearer (headwaterd) --> local key --------> user --+
//!   login --password--> accounts                      +--> caller --> authorization --> handler
//!           '--cookie-> session --key, time, user ----+
//! ```
//!
//! A login and a session exist only where nobody on the network can read them: over HTTPS, or
//! between programs of the same machine (`cookie`).
//!
//! RULE: a secret leaves this room only in a `Set-Cookie` header. `session` and `throttle` are
//! values that take the time as an argument.

mod accounts;
mod administrator;
mod authorization;
mod caller;
mod cookie;
mod https_url;
mod key;
mod local_key;
mod login;
mod session;
mod throttle;

pub use accounts::Accounts;
pub(super) use administrator::Administrator;
pub(super) use authorization::require_administrator;
pub(super) use caller::Caller;
pub use key::SessionKey;
pub use local_key::LocalKey;
pub(super) use login::routes;
