//! What the registry stores, one document type per collection, and the records it returns.
//!
//! RULE: must not know in which registry a document is stored.

mod app;
mod heartbeat;
mod node;
mod stream;
mod token;
mod user;

pub use app::{AppDocument, DEFAULT_APPS, Policy};
pub use heartbeat::{Heartbeat, Load, MAX_WATCHED, StreamViewers, ViewerCounts};
pub use node::{BootEpoch, NodeDocument, NodeIncarnation, NodeRecord};
pub use stream::{Claim, StreamOffer, StreamRecord};
pub use token::{Grant, TokenDocument};
pub use user::{ADMINISTRATOR, MAX_ENDED_SESSIONS, Rights, UserDocument};
