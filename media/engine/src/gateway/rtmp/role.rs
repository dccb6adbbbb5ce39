//! What a connection does: it waits for a request, publishes or plays.
//!
//! Must not know sockets, messages or replies.

use super::client::Request;
use super::deadlines::Activity;
use super::play::Player;
use super::publish::Publisher;

/// The role of a connection. Dropping it ends the role.
#[derive(Debug)]
pub(super) enum Role {
    Idle,
    /// Waits for the hub.
    Pending(Request),
    Publishing(Box<Publisher>),
    Playing(Player),
}

/// Summary of a role that has ended.
#[derive(Debug, Default)]
pub(super) struct RoleSummary {
    /// `app/stream_id`.
    pub(super) stream: String,
    pub(super) role: &'static str,
    /// Frames received from a publisher.
    pub(super) frames: u64,
}

impl Role {
    /// What the deadline of the connection depends on, after the handshake.
    pub(super) fn activity(&self) -> Activity {
        match self {
            Self::Idle | Self::Pending(_) => Activity::Idle,
            Self::Publishing(_) => Activity::Publishing,
            Self::Playing(_) => Activity::Playing,
        }
    }

    /// True while the client waits for the reply to each of its messages.
    pub(super) fn exchanges_commands(&self) -> bool {
        match self {
            Self::Idle | Self::Pending(_) => true,
            Self::Publishing(publisher) => publisher.frames() == 0,
            Self::Playing(_) => false,
        }
    }

    /// The summary of a publisher or player.
    pub(super) fn summary(&self) -> Option<RoleSummary> {
        match self {
            Self::Publishing(publisher) => {
                Some(RoleSummary { stream: publisher.name().to_owned(), role: "publisher", frames: publisher.frames() })
            }
            Self::Playing(player) => Some(RoleSummary { stream: player.name().to_owned(), role: "player", frames: 0 }),
            Self::Idle | Self::Pending(_) => None,
        }
    }
}
