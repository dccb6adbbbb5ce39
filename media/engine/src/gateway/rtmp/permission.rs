//! What admitted the client of a connection, and how the connection learns that it no longer would.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::access::{Access, AccessError, Grounds, Permit};

/// What admitted a client; `None` for the loopback test, which needs no permission.
#[derive(Debug)]
pub(super) struct Permission(pub(super) Option<(Access, Grounds)>);

impl Permission {
    /// Consumes the client's one-time token, if it presented one.
    pub(super) async fn redeem(&mut self) -> Result<(), AccessError> {
        match &mut self.0 {
            Some((access, grounds)) => access.redeem(grounds).await,
            None => Ok(()),
        }
    }

    /// Registers the session of the client.
    pub(super) fn hold(self) -> Option<HeldPermission> {
        let (access, grounds) = self.0?;
        let (ended_tx, ended_rx) = oneshot::channel();
        let permit = access.hold(grounds, move |reason| {
            // Fails if the connection has just closed.
            let _ = ended_tx.send(reason);
        });
        Some(HeldPermission { _permit: permit, ended_rx })
    }
}

/// The permission of a running session.
#[derive(Debug)]
pub(super) struct HeldPermission {
    _permit: Permit,
    ended_rx: oneshot::Receiver<AccessError>,
}

impl HeldPermission {
    /// The reason, once the client would no longer be admitted.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<AccessError> {
        match Pin::new(&mut self.ended_rx).poll(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(reason),
            // The sender lives as long as the permit.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}
