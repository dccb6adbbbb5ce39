//! The document that describes a recording.

use serde::{Deserialize, Serialize};

use crate::StreamName;

/// One recording of a stream: where it is and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingDocument {
    /// Unique in the cluster.
    pub id: String,
    /// What was recorded.
    pub stream: StreamName,
    /// The node that recorded it, and that has the local copy.
    pub node: String,
    /// Unix time of its first frame, in milliseconds.
    pub started_at_ms: u64,
    /// Length, in milliseconds; 0 while it is being written.
    pub duration_ms: u64,
    /// Size, in bytes.
    pub bytes: u64,
    /// File, relative to the node's folder of recordings; none once it has been removed.
    pub file: Option<String>,
    /// Object (`s3://bucket/key`) once the upload is confirmed.
    pub object: Option<String>,
    /// How far it has come.
    pub state: RecordingState,
}

/// How far a recording has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// Being written.
    Recording,
    /// Whole, on the node.
    Local,
    /// Whole, being uploaded.
    Uploading,
    /// Confirmed by the object store.
    Uploaded,
    /// Given up; the node's log says why.
    Failed,
}

/// Which recordings to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordingQuery {
    /// Only of this app.
    pub app: Option<String>,
    /// Only of this stream.
    pub stream: Option<StreamName>,
    /// Left out at the start.
    pub offset: usize,
    /// At most so many.
    pub limit: usize,
}
