//! Receive coalescing: a worker with many viewers reads its socket in batches, as network cards
//! moderate their interrupts.
//!
//! A viewer sends about one RTCP report per second, and reports are not urgent. Without
//! coalescing, a worker with hundreds of viewers wakes more often for reports than for video
//! frames. After each read the worker therefore stops polling the socket for [`PAUSE_DURATION`],
//! unless a handshake is in progress or the socket is flooded. A plain value: it has no socket and
//! takes time as an argument.

use std::time::{Duration, Instant};

/// Duration for which the socket is not polled after a read. Delays a retransmission by at
/// most this duration.
const PAUSE_DURATION: Duration = Duration::from_millis(10);
/// Number of viewers from which on coalescing is used; with fewer, it saves too little.
const MIN_VIEWERS: usize = 50;

/// Decides whether a worker polls its socket for received datagrams.
#[derive(Debug, Default)]
pub(crate) struct RxCoalescing {
    paused_until: Option<Instant>,
}

impl RxCoalescing {
    /// Records that a worker with this number of viewers has emptied its socket. Does not pause if
    /// `flooded`, that is if more than one batch was waiting: garbage would displace the viewers'
    /// datagrams in the kernel's receive queue.
    pub(crate) fn on_receive(&mut self, now: Instant, viewers: usize, flooded: bool) {
        self.paused_until = (viewers >= MIN_VIEWERS && !flooded).then(|| now + PAUSE_DURATION);
    }

    /// Ends the pause, because a peer waits for a response.
    pub(crate) fn wake_now(&mut self) {
        self.paused_until = None;
    }

    /// Returns the end of the pause, or `None` if the socket is to be polled at `now`.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|&until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_pauses_with_many_viewers_but_not_during_handshakes_or_floods() {
        let (mut coalescing, now) = (RxCoalescing::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        assert_eq!(coalescing.paused_until(now), None);
        coalescing.on_receive(now, 49, false);
        assert_eq!(coalescing.paused_until(now), None);
        coalescing.on_receive(now, 50, false);
        assert_eq!(coalescing.paused_until(now), Some(later(10)));
        assert_eq!(coalescing.paused_until(later(9)), Some(later(10)));
        assert_eq!(coalescing.paused_until(later(10)), None);
        coalescing.on_receive(later(12), 50, false);
        coalescing.wake_now();
        assert_eq!(coalescing.paused_until(later(12)), None);
        coalescing.on_receive(later(13), 50, true);
        assert_eq!(coalescing.paused_until(later(13)), None);
    }
}
