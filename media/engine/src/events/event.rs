//! The events.

use std::net::SocketAddr;
use std::time::Duration;

/// The protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RTMP and RTMPS.
    Rtmp,
    /// WebRTC, by WHEP.
    Webrtc,
}

impl Protocol {
    /// The name in log fields and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Webrtc => "webrtc",
        }
    }
}

/// Something that has happened. `stream` is `app/stream_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A publisher has been accepted.
    PublishStarted {
        /// The stream.
        stream: String,
        /// The publisher's protocol.
        protocol: Protocol,
        /// The publisher's address.
        peer: SocketAddr,
    },
    /// A publisher has stopped or was disconnected.
    PublishEnded {
        /// The stream.
        stream: String,
        /// The publisher's protocol.
        protocol: Protocol,
        /// The publisher's address.
        peer: SocketAddr,
        /// Frames that it sent.
        frames: u64,
    },
    /// A request to publish has been refused.
    PublishRefused {
        /// The app, as far as it is printable.
        app: String,
        /// The requested stream id, as far as it is printable.
        stream_id: String,
        /// The client's protocol.
        protocol: Protocol,
        /// The client's address.
        peer: SocketAddr,
        /// Why, for the client and the operator.
        reason: String,
    },
    /// A viewer has been accepted.
    ViewerJoined {
        /// The stream.
        stream: String,
        /// The viewer's protocol.
        protocol: Protocol,
        /// The viewer's address; `None` if it is not known.
        peer: Option<SocketAddr>,
        /// The first digits of the session id, for protocols that have one.
        session: Option<String>,
        /// From the request to this moment.
        setup: Option<Duration>,
    },
    /// A viewer has disconnected or was disconnected.
    ViewerLeft {
        /// The stream.
        stream: String,
        /// The viewer's protocol.
        protocol: Protocol,
        /// The viewer's address; `None` if it is not known.
        peer: Option<SocketAddr>,
        /// The first digits of the session id, for protocols that have one.
        session: Option<String>,
        /// Why the session ended.
        reason: &'static str,
        /// Packets sent to it.
        packets: u64,
        /// Payload bytes sent to it.
        bytes: u64,
        /// How long the session lasted.
        duration: Duration,
    },
    /// A request to watch has been refused.
    PlayRefused {
        /// The app, as far as it is printable.
        app: String,
        /// The requested stream id, as far as it is printable.
        stream_id: String,
        /// The client's protocol.
        protocol: Protocol,
        /// The client's address.
        peer: SocketAddr,
        /// Why, for the client and the operator.
        reason: String,
    },
}

impl Event {
    /// The name of the kind of event, for metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PublishStarted { .. } => "publish_started",
            Self::PublishEnded { .. } => "publish_ended",
            Self::PublishRefused { .. } => "publish_refused",
            Self::ViewerJoined { .. } => "viewer_joined",
            Self::ViewerLeft { .. } => "viewer_left",
            Self::PlayRefused { .. } => "play_refused",
        }
    }

    /// The address of the client; `None` if it is not known.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::PublishStarted { peer, .. }
            | Self::PublishEnded { peer, .. }
            | Self::PublishRefused { peer, .. }
            | Self::PlayRefused { peer, .. } => Some(*peer),
            Self::ViewerJoined { peer, .. } | Self::ViewerLeft { peer, .. } => *peer,
        }
    }

    /// The protocol of the client.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::PublishStarted { protocol, .. }
            | Self::PublishEnded { protocol, .. }
            | Self::PublishRefused { protocol, .. }
            | Self::ViewerJoined { protocol, .. }
            | Self::ViewerLeft { protocol, .. }
            | Self::PlayRefused { protocol, .. } => *protocol,
        }
    }
}
