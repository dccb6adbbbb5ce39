//! Who may change something: passwords, sessions, and the guard in front of every changing request.
//!
//! ```text
//!   Basic (curl) -----> accounts --argon2id--> user --+
//!   login --password--> accounts                      +--> visitor --> guard --> handler
//!           '--cookie-> session --key, time, user ----+
//! ```
//!
//! RULE: no secret leaves this room but in a `Set-Cookie`. Values (`session`, `throttle`) are given the time.

mod accounts;
mod key;
mod login;
mod session;
mod throttle;
mod visitor;

pub use accounts::Accounts;
pub use key::{KeyError, SessionKey};
pub(super) use login::routes;
pub(super) use visitor::{Visitor, guard};
