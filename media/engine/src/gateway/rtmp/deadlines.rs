//! When a connection is closed for inactivity, and which time-out that is.
//!
//! Plain values: time is an argument. Must not know sockets, messages or roles.

use std::time::Duration;

use tokio::time::Instant;

/// From accepting the connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A publisher that sends no media for this duration is closed, which frees its stream name.
const PUBLISHER_TIMEOUT: Duration = Duration::from_secs(10);
/// For a peer that is connected, sends nothing, and neither publishes nor plays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a peer to become a publisher or a player, whatever else it sends: pings do not keep a
/// connection open.
const ROLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A client whose publish request was refused, and that still sends media after this duration, does
/// not read its replies.
const REFUSED_MEDIA_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection is closed if a write makes no progress for this duration.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client to act on a reconnect request.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For writing the queued replies before the socket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A time-out that closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Timeout {
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Handshake,
    #[error("the publisher was silent for {} s", PUBLISHER_TIMEOUT.as_secs())]
    Publisher,
    #[error("the peer neither published nor played for {} s", IDLE_TIMEOUT.as_secs())]
    Idle,
    #[error("the peer has neither published nor played within {} s", ROLE_TIMEOUT.as_secs())]
    Role,
    #[error("the peer did not read for {} s", WRITE_TIMEOUT.as_secs())]
    Write,
}

/// What has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The client was asked to reconnect, and has not: close the connection with a message.
    Reconnect,
    /// The queued replies could not be written: the connection ends without them.
    Close,
    /// The connection ends now.
    Timeout(Timeout),
}

/// What a connection does, as far as its deadline depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Handshake,
    /// Neither publishes nor plays.
    Idle,
    Publishing,
    Playing,
}

/// The times of one connection from which its deadline follows.
#[derive(Debug)]
pub(super) struct Deadlines {
    opened_at: Instant,
    /// Since when the peer has neither published nor played.
    idle_since: Instant,
    /// When bytes last arrived; for a publisher, when media bytes last arrived.
    last_received_at: Instant,
    /// When a publish request was refused first, unless another one was accepted since.
    refused_at: Option<Instant>,
    /// When a client that was asked to reconnect is closed at the latest.
    reconnect_deadline: Option<Instant>,
    closing_since: Option<Instant>,
    /// True if the deadline may be earlier than before.
    changed: bool,
}

impl Deadlines {
    /// Of a connection that is accepted at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened_at: now,
            idle_since: now,
            last_received_at: now,
            refused_at: None,
            reconnect_deadline: None,
            closing_since: None,
            changed: false,
        }
    }

    /// Bytes have arrived; from a publisher, media bytes.
    pub(super) fn on_received(&mut self, now: Instant) {
        self.last_received_at = now;
    }

    /// A publish request is accepted.
    pub(super) fn on_publish_accepted(&mut self, now: Instant) {
        self.refused_at = None;
        self.last_received_at = now;
        self.changed = true;
    }

    /// A publish request is refused.
    pub(super) fn on_publish_refused(&mut self, now: Instant) {
        self.refused_at.get_or_insert(now);
    }

    /// True if media that arrives now has been sent in spite of a refusal.
    pub(super) fn is_media_after_refusal(&self, now: Instant) -> bool {
        self.refused_at.is_some_and(|at| now >= at + REFUSED_MEDIA_TIMEOUT)
    }

    /// The peer stops publishing or playing.
    pub(super) fn on_role_ended(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// The client is asked to reconnect.
    pub(super) fn on_reconnect_requested(&mut self, now: Instant) {
        self.reconnect_deadline = Some(now + RECONNECT_TIMEOUT);
    }

    /// From now on, only queued replies are written.
    pub(super) fn on_closing(&mut self, now: Instant) {
        self.closing_since.get_or_insert(now);
        self.changed = true;
    }

    /// True if the deadline may be earlier than before; false when called again.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// When the timer must fire if nothing else wakes the connection. `blocked_since` is the time
    /// since which the socket has accepted no bytes.
    pub(super) fn deadline(&self, now: Instant, activity: Activity, blocked_since: Option<Instant>) -> Instant {
        if let Some(since) = self.closing_since {
            return since + CLOSE_TIMEOUT;
        }
        if activity == Activity::Handshake {
            return self.opened_at + HANDSHAKE_TIMEOUT;
        }
        if let Some(deadline) = self.reconnect_deadline {
            return deadline;
        }
        match (activity, blocked_since) {
            (_, Some(since)) => since + WRITE_TIMEOUT,
            (Activity::Publishing, None) => self.last_received_at + PUBLISHER_TIMEOUT,
            (Activity::Handshake | Activity::Idle, None) => {
                (self.last_received_at + IDLE_TIMEOUT).min(self.idle_since + ROLE_TIMEOUT)
            }
            // A player whose socket blocks from now on is detected within twice the timeout.
            (Activity::Playing, None) => now + WRITE_TIMEOUT,
        }
    }

    /// What has expired when the timer fires; `None` if nothing has.
    pub(super) fn on_timer(
        &mut self,
        now: Instant,
        activity: Activity,
        blocked_since: Option<Instant>,
    ) -> Option<Expiry> {
        if self.reconnect_deadline.is_some_and(|by| now >= by) {
            self.reconnect_deadline = None;
            return Some(Expiry::Reconnect);
        }
        let deadline = self.deadline(now, activity, blocked_since);
        if now < deadline || (activity == Activity::Playing && blocked_since.is_none()) {
            return None;
        }
        if self.closing_since.is_some() {
            return Some(Expiry::Close);
        }
        if activity == Activity::Handshake {
            return Some(Expiry::Timeout(Timeout::Handshake));
        }
        if blocked_since.is_some() {
            return Some(Expiry::Timeout(Timeout::Write));
        }
        if now > deadline + MAX_TIMER_DELAY {
            // This process was stalled: bytes that the peer sent meanwhile may still be unread.
            self.idle_since += now - deadline;
            self.last_received_at = now;
            return None;
        }
        Some(Expiry::Timeout(match activity {
            Activity::Publishing => Timeout::Publisher,
            _ if now >= self.idle_since + ROLE_TIMEOUT => Timeout::Role,
            _ => Timeout::Idle,
        }))
    }
}

/// If the timer fires later than this, the process was stalled and no timeout is applied.
const MAX_TIMER_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_a_stalled_process_start_again() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        let on_time = start + PUBLISHER_TIMEOUT;
        assert_eq!(deadlines.on_timer(on_time - MAX_TIMER_DELAY, Activity::Publishing, None), None);
        let late = on_time + MAX_TIMER_DELAY + Duration::from_millis(1);
        assert_eq!(deadlines.on_timer(late, Activity::Publishing, None), None, "unread bytes may be there");
        assert_eq!(deadlines.deadline(late, Activity::Publishing, None), late + PUBLISHER_TIMEOUT);
        let again = late + PUBLISHER_TIMEOUT;
        assert_eq!(deadlines.on_timer(again, Activity::Publishing, None), Some(Expiry::Timeout(Timeout::Publisher)));
    }

    #[test]
    fn client_that_does_not_reconnect_is_closed_even_if_it_does_not_read() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(start);
        deadlines.on_reconnect_requested(start);
        let by = deadlines.deadline(start, Activity::Playing, None);
        assert_eq!(by, start + RECONNECT_TIMEOUT);
        assert_eq!(deadlines.on_timer(by, Activity::Playing, None), Some(Expiry::Reconnect));
        deadlines.on_closing(by);
        let closed_by = deadlines.deadline(by, Activity::Idle, Some(start));
        assert_eq!(closed_by, by + CLOSE_TIMEOUT);
        assert_eq!(deadlines.on_timer(closed_by, Activity::Idle, Some(start)), Some(Expiry::Close));
    }
}
