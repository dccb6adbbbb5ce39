//! Bodies of the REST API. Their doc comments are the descriptions in `docs/openapi.json`.

mod broadcast;
mod cluster;
mod stream;

pub use broadcast::{AppStatistics, Broadcast, BroadcastStatistics, Count, Refusal};
pub use cluster::{ClusterStream, NodeViewers};
pub use stream::{AudioStatus, Notice, StreamStatus, VideoStatus};
