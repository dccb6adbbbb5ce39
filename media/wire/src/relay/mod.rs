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
//!                                         <---     Track, Targets, Frame, Notice, Pong, End
//! ```
//!
//! One connection carries one stream. `hello` authenticates both ends with the cluster secret and
//! derives the keys, `record` encrypts and decrypts records, and `message` defines their content.
//! The caller supplies the random nonces.

mod error;
mod hello;
#[cfg(test)]
mod hostile_test;
mod message;
mod reader;
mod record;
mod track;

pub use error::MessageError;
pub use hello::{
    CLIENT_HELLO_BYTES, ClientHandshake, ClusterSecret, HandshakeError, MIN_SECRET_BYTES, NONCE_BYTES, PROOF_BYTES,
    SERVER_HELLO_BYTES, SecretError, ServerHandshake,
};
pub use message::{EndReason, MediaFrame, Message, MessageReader, Refusal, write_frame};
pub use record::{Channel, MAX_RECORD_BYTES, Opener, RecordError, Sealer};
