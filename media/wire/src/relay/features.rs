//! Optional features of a node, as one byte of its hello.
//!
//! The hellos of nodes that know no features have a zero there, and such nodes ignore the byte of
//! others. A feature therefore needs no new protocol version. Must not know the messages.

/// The features that a node supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u8);

impl Features {
    /// All features of this version.
    pub(super) const SUPPORTED: Self = Self(Self::WITNESS);

    /// The node sends and understands [`Message::Heartbeat`], and answers
    /// [`Message::AskWitness`].
    ///
    /// [`Message::Heartbeat`]: super::Message::Heartbeat
    /// [`Message::AskWitness`]: super::Message::AskWitness
    const WITNESS: u8 = 1;

    /// Reads the byte of a hello. Unknown features are ignored.
    pub(super) const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte of a hello.
    pub(super) const fn byte(self) -> u8 {
        self.0
    }

    /// True if the node can report how long the owner of a stream has been silent.
    pub const fn has_witness(self) -> bool {
        self.0 & Self::WITNESS != 0
    }
}
