//! The mailbox of a worker: other threads send it commands and ring updates.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gateway::webrtc::play::session::NewSession;
use crate::gateway::webrtc::signalling::SessionId;
use crate::gateway::webrtc::transport::udp::Wake;

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
    wake: Arc<Wake>,
}

/// Everything that has arrived since the last [`Mailbox::take`].
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) commands: Vec<Command>,
    /// Ids of the packetizers with new packets or an end; each at most once.
    pub(crate) news: Vec<u64>,
}

impl Mailbox {
    pub(crate) fn new(wake: Arc<Wake>) -> Self {
        Self { inbox: Mutex::default(), wake }
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
        self.wake.wake();
        true
    }

    /// Removes and returns everything queued. Does not wait.
    pub(crate) fn take(&self) -> Inbox {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn news(&self, feed: u64) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).news.push(feed);
        self.wake.wake();
    }
}

/// A worker's subscription to the packet ring of one packetizer. Coalesces notifications.
#[derive(Debug)]
pub(crate) struct Listener {
    mailbox: Arc<Mailbox>,
    feed: u64,
    told: AtomicBool,
}

impl Listener {
    pub(crate) fn new(mailbox: Arc<Mailbox>, feed: u64) -> Self {
        Self { mailbox, feed, told: AtomicBool::new(false) }
    }

    /// Notifies the worker, unless a notification is already pending.
    pub(crate) fn tell(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.mailbox.news(self.feed);
        }
    }

    /// Clears the pending notification. The worker calls this before it reads the ring.
    pub(crate) fn looked(&self) {
        self.told.store(false, Ordering::Release);
    }
}
