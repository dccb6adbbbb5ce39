//! Why a connection was closed: the reason in its last log line.

use std::io;

use headwater_wire::rtmp::chunk::ChunkError;
use headwater_wire::rtmp::handshake::NotRtmp;
use headwater_wire::rtmp::session::SessionError;

use super::deadlines::Timeout;
use crate::access::AccessError;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("the peer closed the connection")]
    PeerClosed,
    #[error("the socket failed ({0})")]
    SocketFailed(io::ErrorKind),
    #[error(transparent)]
    Timeout(#[from] Timeout),
    #[error("the app does not exist")]
    UnknownApp,
    #[error("this node is draining")]
    Draining,
    #[error("the peer continued to send media after its publish request was refused")]
    MediaAfterRefusal,
    #[error("the unfinished messages of all connections occupy too much memory, and this one has long ones")]
    TooManyUnfinishedBytes,
    #[error("another node owns the stream")]
    Revoked,
    #[error("the client is no longer permitted to do this ({})", .0.code())]
    NotPermitted(AccessError),
    #[error(transparent)]
    NotRtmp(#[from] NotRtmp),
    #[error("invalid chunk stream")]
    Chunk(#[from] ChunkError),
    #[error("invalid message sequence")]
    Session(#[from] SessionError),
}
