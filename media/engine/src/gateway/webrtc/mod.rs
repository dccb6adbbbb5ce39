//! WebRTC playback (WHEP): one session per viewer, on one worker thread per core.
//!
//! ```text
//!   hub --frames--> packetizer --packets--> worker --UDP--> viewers
//!                   task per track          thread per core; sessions: ICE-lite, DTLS, SRTP
//!   http --offer--> signalling::Whep --Command::Join--> worker
//! ```
//!
//! A session belongs to one worker and is accessed by no other thread. A frame wakes each worker
//! once. Sending a packet to a viewer takes no lock, no allocation and no transfer between threads:
//! it writes a 12-byte header, encrypts the payload, and shares a system call with other packets.

mod directory;
mod limits;
mod metrics;
mod play;
mod server;
mod signalling;
mod transport;

pub use limits::Limits;
pub use metrics::Metrics;
pub use server::{BindError, Gateway};
pub use signalling::{Answer, OfferError, Whep};
pub use transport::session_id::SessionId;
