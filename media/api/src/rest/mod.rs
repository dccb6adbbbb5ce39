//! Bodies of the REST API. Their doc comments are the descriptions in `docs/openapi.json`.

mod app;
mod broadcast;
mod cluster;
mod stream;
mod token;

pub use app::{AppConflict, AppSettings};
pub use broadcast::{AppStatistics, Broadcast, BroadcastStatistics, Count, Refusal};
pub use cluster::{ClusterStream, NodeViewers};
pub use stream::{AudioStatus, Notice, StreamStatus, VideoStatus};
pub use token::{BroadcastToken, MadeToken, NewToken, OperationResult, TokenClaims, TokenRevocation, TokenStatus};
