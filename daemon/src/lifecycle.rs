//! The outer life of the daemon: signals that end it, and what it tells the service manager.
//!
//! The first SIGTERM or SIGINT drains, the second ends at once. A drain that began for another reason, such as Auto Scaling's wish,
//! is no signal: the service manager's SIGTERM at the end of the machine is the first one all the same.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::engine::Order;

/// Signals that end the daemon.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// One has come already.
    told: bool,
}

impl Signals {
    /// From here on signals no longer end the process by themselves.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            told: false,
        })
    }

    /// Waits for the next one: the first is the order to drain, all others to end at once. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        if std::mem::replace(&mut self.told, true) { Order::Kill } else { Order::Drain }
    }

    /// True once there has been one: the daemon is to end.
    pub(crate) fn told(&self) -> bool {
        self.told
    }

    /// Waits for one that ends the daemon at once.
    pub(crate) async fn next_kill(&mut self) {
        while self.next().await != Order::Kill {}
    }
}

/// Tells the service manager that the daemon is alive, if it wants to know: from the first life of the node to the end of the last.
#[derive(Debug)]
pub(crate) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the environment of this process describes it.
    pub(crate) fn find() -> Self {
        // Twice as often as it wants to hear from us, as systemd advises (sd_watchdog_enabled(3)).
        let watchdog = sd_notify::watchdog_enabled().filter(|every| !every.is_zero()).map(|every| {
            let mut ticks = interval((every / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self(watchdog)
    }

    /// Never ends.
    pub(crate) async fn keep_alive(&mut self) -> Infallible {
        match &mut self.0 {
            Some(ticks) => loop {
                ticks.tick().await;
                tell(&[NotifyState::Watchdog]);
            },
            None => std::future::pending().await,
        }
    }
}

/// The service manager, if there is one: told of every change.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    ready: bool,
}

impl ServiceManager {
    /// As the environment of this process describes it.
    pub(crate) fn find() -> Self {
        Self { ready: false }
    }

    /// The node serves: says so for the first time, or again after a crash.
    pub(crate) fn serving(&mut self, status: &str) {
        let mut states = vec![NotifyState::Status(status)];
        if !self.ready {
            states.push(NotifyState::Ready);
            self.ready = true;
        }
        tell(&states);
    }

    /// What the node is busy with, in words.
    pub(crate) fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// The node takes leave; the daemon ends with it, or stays, `warm`, until the node is wanted again.
    pub(crate) fn draining(&self, warm: bool) {
        if warm { self.status("draining") } else { self.stopping("draining") }
    }

    /// The node is ending.
    pub(crate) fn stopping(&self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!(err:% = e; "could not tell the service manager");
    }
}
