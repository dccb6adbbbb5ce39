//! Writes each event as one log line. Viewers are logged at `info` where their protocol has
//! sessions; `/metrics` counts all of them.

use std::net::SocketAddr;

use crate::events::Event;

/// Logs one event.
pub(super) fn write(event: &Event) {
    let protocol = event.protocol().as_str();
    match event {
        Event::PublishStarted { stream, peer, .. } => {
            log::info!(stream = stream.as_str(), peer:%, protocol; "publish accepted");
        }
        Event::PublishEnded { stream, peer, frames, .. } => {
            log::info!(stream = stream.as_str(), peer:%, protocol, frames; "publish ended");
        }
        Event::PublishRefused { app, stream_id, peer, reason, .. } => {
            log::warn!(
                app = app.as_str(), stream_id = stream_id.as_str(), peer:%, protocol, err = reason.as_str();
                "publish refused"
            );
        }
        Event::ViewerJoined { stream, peer, session: None, .. } => {
            log::info!(stream = stream.as_str(), peer = text(*peer).as_str(), protocol; "play accepted");
        }
        Event::ViewerJoined { stream, peer, session: Some(session), setup, .. } => {
            let elapsed_ms = setup.map_or(0, |setup| setup.as_millis() as u64);
            log::info!(
                stream = stream.as_str(), viewer = session.as_str(), peer = text(*peer).as_str(), protocol, elapsed_ms;
                "viewer joined"
            );
        }
        Event::ViewerLeft { stream, peer, session, reason, packets, bytes, duration, .. } => {
            log::info!(
                stream = stream.as_str(), viewer = session.as_deref().unwrap_or_default(),
                peer = text(*peer).as_str(), protocol, reason, packets, bytes,
                elapsed_ms = duration.as_millis() as u64;
                "viewer left"
            );
        }
        Event::PlayRefused { app, stream_id, peer, reason, .. } => {
            log::info!(
                app = app.as_str(), stream_id = stream_id.as_str(), peer:%, protocol, err = reason.as_str();
                "play refused"
            );
        }
    }
}

fn text(peer: Option<SocketAddr>) -> String {
    peer.map(|peer| peer.to_string()).unwrap_or_default()
}
