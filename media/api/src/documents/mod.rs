//! What the registry stores, one document type per collection, and the records it returns.
//!
//! RULE: must not know in which registry a document is stored.

mod app;
mod app_limits;
mod heartbeat;
mod node;
mod policy;
mod stream;
mod stream_policies;
mod token;
mod user;

pub use app::{AppDocument, DEFAULT_APPS};
pub use app_limits::{
    InvalidApp, MAX_ALLOWED_ORIGINS, MAX_JWKS_URL_BYTES, MAX_KEY_BYTES, MAX_ORIGIN_BYTES, MAX_PUBLISH_NETWORKS,
    MAX_STREAM_POLICIES, MIN_JWT_KEY_BYTES, MIN_KEY_BYTES,
};
pub use heartbeat::{Heartbeat, Load, MAX_WATCHED, StreamViewers, ViewerCounts};
pub use node::{BootEpoch, NodeDocument, NodeIncarnation, NodeRecord};
pub use policy::{Policy, StreamPolicy};
pub use stream::{Claim, StreamOffer, StreamRecord};
pub use token::{Grant, KEPT_AFTER_EXPIRY_MS, MAX_PLAY_SESSION_MS, Revocation, Revocations, TokenDocument, TokenKind};
pub use user::{ADMINISTRATOR, MAX_ENDED_SESSIONS, Rights, UserDocument};
