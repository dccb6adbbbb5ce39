//! The relay protocol, version 1: how a node that has viewers gets a stream from a node that holds it.
//!
//! ```text
//!   edge (dials)                                   origin (answers)
//!   ClientHello: versions, nonce          --->
//!                                         <---     ServerHello: version, nonce, proof
//!   proof                                 --->
//!   ======================= from here on sealed records =======================
//!   Subscribe app/stream_id               --->
//!                                         <---     Accepted, Track..., Frame... | Refused
//!   KeyFrame, Ping, End                   --->
//!                                         <---     Track, Frame, Notice, Pong, End
//! ```
//!
//! One connection carries one stream. `hello` proves to both ends that the other knows the cluster secret and makes the
//! keys, `record` seals and opens, `message` says what is inside. Everything is a value: random nonces come from the
//! caller, nothing here waits.

mod hello;
#[cfg(test)]
mod hostile_test;
mod message;
mod reader;
mod record;
mod track;

pub use hello::{
    Answer, CLIENT_HELLO_BYTES, ClusterSecret, Dial, HelloError, MIN_SECRET_BYTES, NONCE_BYTES, PROOF_BYTES,
    SERVER_HELLO_BYTES, SecretError,
};
pub use message::{EndReason, Media, Message, MessageError, Messages, Refusal, write_frame};
pub use record::{Channel, MAX_RECORD_BYTES, Opener, RecordError, Sealer};
