//! What all connections of the server share.

use std::sync::Arc;

use super::loopback::LoopbackTest;
use super::metrics::Metrics;
use super::play::Fanouts;
use super::reassembly::ReassemblyBudget;
use crate::access::Access;
use crate::events::EventBus;
use crate::hub::Hub;
use crate::node::admission::Admission;
use crate::runtime::client_pool::ClientPool;
use crate::runtime::log_limiter::LogLimiter;

/// State shared by all connections.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hub: Hub,
    pub(super) access: Access,
    pub(super) events: EventBus,
    pub(super) fanouts: Fanouts,
    pub(super) metrics: Metrics,
    pub(super) loopback: Arc<LoopbackTest>,
    pub(super) admission: Admission,
    /// The names of live streams, shared among clients.
    pub(super) stream_names: ClientPool,
    pub(super) reassembly: ReassemblyBudget,
    pub(super) log_limiter: Arc<LogLimiter>,
}
