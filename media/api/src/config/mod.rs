//! The configuration of a node: one tree, read from one TOML file.
//!
//! Unknown keys are rejected, and impossible values do not load. Each default is next to its field.
//! `docs/headwater.example.toml` is the commented reference; a test compares it with
//! [`Config::default`].
//!
//! RULE: must not know where the file is or who reads it.

mod listen;
mod listeners;
mod media;
mod node;
mod registry;
mod tree;

pub use listen::{InvalidListen, Listen};
pub use listeners::{Health, Http, Relay, Rtmp, Tls, Webrtc};
pub use media::Hls;
pub use node::{Limits, Metadata, Node, Role};
pub use registry::{Mongod, Registry, RegistryKind};
pub use tree::{Config, ParseError};
