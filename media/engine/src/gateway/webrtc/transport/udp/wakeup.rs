//! Wakes the thread that waits for its socket (an eventfd).
//!
//! Other threads call [`Wakeup::wake`]; the owner of the socket waits. Must not know what the
//! thread is woken for.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes the thread that waits for its socket.
#[derive(Debug)]
pub(crate) struct Wakeup(OwnedFd);

impl Wakeup {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes the thread. Several calls before it wakes have the effect of one.
    pub(crate) fn wake(&self) {
        // Fails only if the counter is saturated; the thread is then about to wake anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits for a call of [`Wakeup::wake`] or the timeout.
    pub(super) fn wait(&self, timeout: Duration) {
        self.poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout);
    }

    /// Waits for a call of [`Wakeup::wake`], a datagram or the timeout. Returns true if the socket
    /// may have datagrams.
    pub(super) fn wait_or_readable(&self, socket: &UdpSocket, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        self.poll(&mut fds, timeout);
        !fds[1].revents().is_empty()
    }

    /// Polls `fds`. The first must be the wake-up event, which is cleared.
    fn poll(&self, fds: &mut [PollFd<'_>], timeout: Duration) {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // An interrupted wait looks like a timeout.
        let _ = poll(fds, Some(&timeout));
        if !fds[0].revents().is_empty() {
            self.clear();
        }
    }

    fn clear(&self) {
        // Fails only if another call has cleared the event.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn wake_up_before_the_wait_is_not_lost() {
        let (wakeup, socket) = (Wakeup::new().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let begin = Instant::now();
        wakeup.wake();
        assert!(!wakeup.wait_or_readable(&socket, Duration::from_secs(60)));
        wakeup.wake();
        wakeup.wait(Duration::from_secs(60));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn wait_clears_the_wake_up() {
        let wakeup = Wakeup::new().unwrap();
        wakeup.wake();
        wakeup.wait(Duration::from_secs(60));
        let (begin, timeout) = (Instant::now(), Duration::from_millis(20));
        wakeup.wait(timeout);
        assert!(begin.elapsed() >= timeout);
    }
}
