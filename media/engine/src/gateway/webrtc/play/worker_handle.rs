//! What signalling knows of a worker: where to send commands, and what to put in an SDP answer.
//!
//! Commands go in; the worker reports its liveness. Must not know the worker's sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::gateway::webrtc::play::mailbox::Mailbox;
use crate::gateway::webrtc::transport::liveness::Liveness;

/// The handle of one worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) liveness: Arc<Liveness>,
    /// The host candidates of the worker's socket, preferred first.
    pub(crate) candidates: Vec<SocketAddr>,
}
