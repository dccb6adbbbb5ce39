//! Viewers: packetizers once per track, and the workers that send their packets to every session.

pub(super) mod audio_batch;
mod datagrams;
pub(super) mod mailbox;
pub(super) mod packetizer;
pub(super) mod prefetch;
mod presentation_order;
pub(super) mod ring_subscription;
pub(super) mod rtx_limiter;
pub(super) mod send_track;
pub(super) mod session;
pub(super) mod worker;
pub(super) mod worker_handle;
