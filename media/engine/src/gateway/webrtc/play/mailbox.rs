//! The mailbox of a worker: other threads send it commands and ring updates.
//!
//! Signalling and packetizers write, the worker takes. Must not know what the worker does with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gateway::webrtc::play::ring_subscription::RingUpdates;
use crate::gateway::webrtc::play::session::NewSession;
use crate::gateway::webrtc::transport::session_id::SessionId;
use crate::gateway::webrtc::transport::udp::Wakeup;

/// Maximum number of queued commands. A worker empties its mailbox within milliseconds; above this
/// limit, [`Command::Join`] is refused.
const DEPTH_COMMANDS: usize = 1_024;

/// An instruction to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Creates a session and waits for its viewer to connect.
    Join(Box<NewSession>),
    /// Ends a session at the viewer's request (WHEP DELETE).
    Leave(SessionId),
    /// Ends a session whose viewer is no longer admitted, for this reason.
    Revoke(SessionId, &'static str),
    /// Ends a session that is not connected, because newer ones need its place.
    Displace(SessionId),
    /// Ends all sessions, then the thread.
    Stop,
    /// Panics. For tests.
    #[cfg(test)]
    Panic,
}

/// The mailbox of one worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    /// True if there may be commands: they are rare, and a worker that wakes for a frame takes no
    /// lock for them.
    has_commands: AtomicBool,
    ring_updates: Arc<RingUpdates>,
    wakeup: Arc<Wakeup>,
}

/// Everything that has arrived since the last [`Mailbox::take`].
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) commands: Vec<Command>,
    /// Ids of the packetizers with new packets or an end; each at most once.
    pub(crate) updated_packetizers: Vec<u64>,
}

impl Mailbox {
    /// Creates an empty mailbox of the worker that `wakeup` wakes.
    pub(crate) fn new(wakeup: Arc<Wakeup>) -> Self {
        let ring_updates = Arc::new(RingUpdates::new(Arc::clone(&wakeup)));
        Self { commands: Mutex::default(), has_commands: AtomicBool::new(false), ring_updates, wakeup }
    }

    /// Returns the queue of ring updates, for subscriptions.
    pub(crate) fn ring_updates(&self) -> &Arc<RingUpdates> {
        &self.ring_updates
    }

    /// Queues a command and wakes the worker. Returns false if a [`Command::Join`] exceeds the
    /// limit; other commands are always accepted.
    pub(crate) fn send(&self, command: Command) -> bool {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.len() >= DEPTH_COMMANDS && matches!(command, Command::Join(_)) {
            return false;
        }
        commands.push(command);
        self.has_commands.store(true, Ordering::Release);
        drop(commands);
        self.wakeup.wake();
        true
    }

    /// Removes and returns everything queued. Does not wait.
    pub(crate) fn take(&self) -> Inbox {
        Inbox { commands: self.take_commands(), updated_packetizers: self.ring_updates.take() }
    }

    fn take_commands(&self) -> Vec<Command> {
        if !self.has_commands.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_commands.store(false, Ordering::Relaxed);
        std::mem::take(&mut *commands)
    }
}

#[cfg(test)]
mod tests {
    use headwater_api::StreamName;
    use headwater_wire::webrtc::Fingerprint;

    use super::*;
    use crate::gateway::webrtc::play::ring_subscription::RingSubscription;
    use crate::gateway::webrtc::transport::ice::generate_credentials;
    use crate::gateway::webrtc::transport::udp::Socket;
    use crate::hub::{Hub, Limits};

    #[test]
    fn commands_are_taken_once_and_in_order() {
        let mailbox = Mailbox::new(Socket::bind(0).unwrap().wake_handle());
        assert!(mailbox.take().commands.is_empty());
        let id = SessionId::random();
        assert!(mailbox.send(Command::Leave(id)) && mailbox.send(Command::Stop));
        assert!(matches!(mailbox.take().commands[..], [Command::Leave(first), Command::Stop] if first == id));
        assert!(mailbox.take().commands.is_empty());
    }

    #[test]
    fn updates_of_a_ring_are_coalesced_until_acknowledged() {
        let mailbox = Mailbox::new(Socket::bind(0).unwrap().wake_handle());
        let subscription = RingSubscription::new(Arc::clone(mailbox.ring_updates()), 7);
        subscription.notify();
        subscription.notify();
        assert_eq!(mailbox.take().updated_packetizers, [7]);
        subscription.notify();
        assert_eq!(mailbox.take().updated_packetizers, [0; 0]);
        subscription.acknowledge();
        subscription.notify();
        assert_eq!(mailbox.take().updated_packetizers, [7]);
    }

    #[tokio::test]
    async fn full_mailbox_refuses_joins_and_accepts_other_commands() {
        let mailbox = Mailbox::new(Socket::bind(0).unwrap().wake_handle());
        let hub = Hub::new(Limits::default());
        let producer = hub.publish(&StreamName::new("live", "a").unwrap(), "test").unwrap();
        let join = || {
            Command::Join(Box::new(NewSession {
                id: SessionId::random(),
                stream: Arc::clone(producer.stream()),
                local: generate_credentials(),
                remote: generate_credentials(),
                fingerprint: Fingerprint::of(b"a certificate"),
                packetizers: Vec::new(),
            }))
        };
        assert!((0..DEPTH_COMMANDS).all(|_| mailbox.send(join())));
        assert!(!mailbox.send(join()));
        assert!(mailbox.send(Command::Stop));
        assert_eq!(mailbox.take().commands.len(), DEPTH_COMMANDS + 1);
    }
}
