//! WebRTC out (WHEP): a slim session per viewer on one worker thread per core.
//!
//! ```text
//!   hub --frames--> feed (task, once per track) --packets--> worker (thread, once per core) --datagrams--> viewers
//!   http --offer--> play::Whep --join--> worker                     session: ICE-lite, DTLS, SRTP, RTCP
//! ```
//!
//! A session lives on one worker and is touched by no other thread. A frame wakes each worker once. Per packet and viewer
//! there is no lock, no allocation and no hand-over: twelve header bytes, encryption, and a share of one send call.

mod addresses;
mod dtls;
mod feed;
mod held;
mod mailbox;
mod metrics;
mod moderation;
mod play;
mod prefetch;
mod pulse;
mod resends;
mod server;
mod session;
mod srtp;
mod track;
mod udp;
mod worker;

pub use metrics::Metrics;
pub use play::{Answer, OfferError, SessionId, Whep};
pub use server::{BindError, Gateway, Limits};
