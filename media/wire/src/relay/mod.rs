//! The relay protocol, version 1: a node with viewers receives a stream from a node that has it.
//!
//! ```text
//!   edge (client)                                  origin (server)
//!   ClientHello: versions, nonce          --->
//!                                         <---     ServerHello: version, nonce, proof
//!   proof                                 --->
//!   ======================= from here on sealed records =======================
//!   Subscribe app/stream_id               --->
//!                                         <---     Accepted, Track..., Targets, Frame... | Refused
//!   KeyFrame, Ping, End                   --->
//!                                         <---     Track, Targets, Frame, Heartbeat, Notice, Pong,
//!                                                  End
//! ```
//!
//! One connection carries one stream. A connection may also begin, and end, with one of two other
//! requests: a node that has the publisher of a stream whose owner does not answer sends
//! `AskWitness` to nodes that watch the stream, which answer with a `Testimony`; and once it owns
//! the stream it sends them `Moved`.
//! `hello` authenticates both ends with the cluster secret and
//! derives the keys, `record` encrypts and decrypts records, and `message` defines their content.
//! `features` names the optional messages that a node supports. The caller supplies the random
//! nonces.

mod error;
mod features;
mod hello;
#[cfg(test)]
mod hostile_test;
mod message;
mod reader;
mod record;
mod track;

pub use error::MessageError;
pub use features::Features;
pub use hello::{
    CLIENT_HELLO_BYTES, ClientHandshake, ClusterSecret, HandshakeError, MIN_SECRET_BYTES, NONCE_BYTES, PROOF_BYTES,
    SERVER_HELLO_BYTES, SecretError, ServerHandshake,
};
pub use message::{EndReason, MediaFrame, Message, MessageReader, Owner, Refusal, write_frame};
pub use record::{Channel, MAX_RECORD_BYTES, Opener, RecordError, Sealer};
