//! How other threads speak to a worker: a few commands, and which feeds have news.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::play::SessionId;
use super::session::NewSession;
use super::udp::Wake;

/// Commands that may wait. A worker empties its mailbox within milliseconds; beyond this, joins are refused.
const DEPTH_COMMANDS: usize = 1_024;

/// What a worker is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A viewer will come.
    Join(Box<NewSession>),
    /// A viewer has asked to leave.
    Leave(SessionId),
    /// End all sessions, then the thread.
    Stop,
    /// A bug, for tests.
    #[cfg(test)]
    Panic,
}

/// The mailbox of one worker.
#[derive(Debug)]
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    wake: Arc<Wake>,
}

/// What has come since the worker last looked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) commands: Vec<Command>,
    /// Feeds with news; each at most once.
    pub(super) news: Vec<u64>,
}

impl Mailbox {
    pub(super) fn new(wake: Arc<Wake>) -> Self {
        Self { inbox: Mutex::default(), wake }
    }

    /// False if it is full. A leave or a stop always fits.
    pub(super) fn send(&self, command: Command) -> bool {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.commands.len() >= DEPTH_COMMANDS && matches!(command, Command::Join(_)) {
            return false;
        }
        inbox.commands.push(command);
        drop(inbox);
        self.wake.wake();
        true
    }

    /// Takes what is there.
    pub(super) fn take(&self) -> Inbox {
        std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn news(&self, feed: u64) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).news.push(feed);
        self.wake.wake();
    }
}

/// A worker's ear at a feed.
#[derive(Debug)]
pub(super) struct Listener {
    mailbox: Arc<Mailbox>,
    feed: u64,
    told: AtomicBool,
}

impl Listener {
    pub(super) fn new(mailbox: Arc<Mailbox>, feed: u64) -> Self {
        Self { mailbox, feed, told: AtomicBool::new(false) }
    }

    /// Tells the worker, once until it has looked.
    pub(super) fn tell(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.mailbox.news(self.feed);
        }
    }

    /// The worker is about to look.
    pub(super) fn looked(&self) {
        self.told.store(false, Ordering::Release);
    }
}
