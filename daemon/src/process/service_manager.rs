//! Signals that stop the daemon, and notifications to the service manager (systemd).
//!
//! The first SIGTERM or SIGINT drains, the second stops at once. A drain that began for another
//! reason, such as a termination by Auto Scaling, does not count as a signal: the service manager's
//! SIGTERM at machine shutdown is still the first one.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::process::engine::RunCommand;

/// Signals that stop the daemon.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// True after the first signal.
    stop_requested: bool,
}

impl Signals {
    /// Installs the handlers: from here on signals no longer kill the process.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stop_requested: false,
        })
    }

    /// Waits for the next signal: the first one commands a drain, all others an immediate stop.
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> RunCommand {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        if std::mem::replace(&mut self.stop_requested, true) { RunCommand::Kill } else { RunCommand::Drain }
    }

    /// True after the first signal.
    pub(crate) fn stop_requested(&self) -> bool {
        self.stop_requested
    }

    /// Waits for a signal that stops the daemon at once.
    pub(crate) async fn next_kill(&mut self) {
        while self.next().await != RunCommand::Kill {}
    }
}

/// Notifies the service manager's watchdog, if it is enabled.
#[derive(Debug)]
pub(crate) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// Reads the watchdog settings from the environment.
    pub(crate) fn from_environment() -> Self {
        // Twice per timeout, as systemd advises (sd_watchdog_enabled(3)).
        let watchdog = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()).map(|timeout| {
            let mut ticks = interval((timeout / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self(watchdog)
    }

    /// Never returns.
    pub(crate) async fn keep_alive(&mut self) -> Infallible {
        match &mut self.0 {
            Some(ticks) => loop {
                ticks.tick().await;
                notify(&[NotifyState::Watchdog]);
            },
            None => std::future::pending().await,
        }
    }
}

/// Notifies the service manager, if there is one, of state changes.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    ready: bool,
}

impl ServiceManager {
    /// No notification has been sent yet.
    pub(crate) fn new() -> Self {
        Self { ready: false }
    }

    /// Reports that the node serves, for the first time or again after a crash.
    pub(crate) fn serving(&mut self, status: &str) {
        let mut states = vec![NotifyState::Status(status)];
        if !self.ready {
            states.push(NotifyState::Ready);
            self.ready = true;
        }
        notify(&states);
    }

    /// Reports what the node is doing.
    pub(crate) fn status(&self, status: &str) {
        notify(&[NotifyState::Status(status)]);
    }

    /// Reports a drain. With `to_warm_pool` the daemon keeps running until the instance is started
    /// again.
    pub(crate) fn draining(&self, to_warm_pool: bool) {
        if to_warm_pool { self.status("draining") } else { self.stopping("draining") }
    }

    /// Reports that the daemon is stopping.
    pub(crate) fn stopping(&self, status: &str) {
        notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        log::warn!(err:% = e; "could not notify the service manager");
    }
}
