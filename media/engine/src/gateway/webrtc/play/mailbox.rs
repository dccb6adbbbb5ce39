//! The mailbox of a worker: other threads send it commands and ring updates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gateway::webrtc::play::session::NewSession;
use crate::gateway::webrtc::signalling::SessionId;
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
    /// Ends all sessions, then the thread.
    Stop,
    /// Panics. For tests.
    #[cfg(test)]
    Panic,
}

/// The mailbox of one worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    wakeup: Arc<Wakeup>,
}

/// Everything that has arrived since the last [`Mailbox::take`].
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) commands: Vec<Command>,
    /// Ids of the packetizers with new packets or an end; each at most once.
    pub(crate) updated_packetizers: Vec<u64>,
}

impl Mailbox {
    pub(crate) fn new(wakeup: Arc<Wakeup>) -> Self {
        Self { inbox: Mutex::default(), wakeup }
    }

    /// Queues a command and wakes the worker. Returns false if a [`Command::Join`] exceeds the
    /// limit; other commands are always accepted.
    pub(crate) fn send(&self, command: Command) -> bool {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.commands.len() >= DEPTH_COMMANDS && matches!(command, Command::Join(_)) {
            return false;
        }
        inbox.commands.push(command);
        drop(inbox);
        self.wakeup.wake();
        true
    }

    /// Removes and returns everything queued. Does not wait.
    pub(crate) fn take(&self) -> Inbox {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn notify_update(&self, packetizer_id: u64) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).updated_packetizers.push(packetizer_id);
        self.wakeup.wake();
    }
}

/// A worker's subscription to the packet ring of one packetizer. Coalesces notifications.
#[derive(Debug)]
pub(crate) struct RingSubscription {
    mailbox: Arc<Mailbox>,
    packetizer_id: u64,
    notified: AtomicBool,
}

impl RingSubscription {
    pub(crate) fn new(mailbox: Arc<Mailbox>, packetizer_id: u64) -> Self {
        Self { mailbox, packetizer_id, notified: AtomicBool::new(false) }
    }

    /// Notifies the worker, unless a notification is already pending.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.mailbox.notify_update(self.packetizer_id);
        }
    }

    /// Clears the pending notification. The worker calls this before it reads the ring.
    pub(crate) fn acknowledge(&self) {
        self.notified.store(false, Ordering::Release);
    }
}
