//! Renews the node's entry in a shared registry, and tells with it how busy the node is.
//!
//! A registry that is away costs nothing but the entry: the node serves on, and enters itself again, as the same life, when
//! the registry is back.

use std::time::Duration;

use headwater_api::error::Chain;
use headwater_api::node::{Heartbeat, Load};
use headwater_registry::{Registry as _, RegistryError, Store, Timing};
use tokio::sync::watch;

use crate::asg::State;
use crate::engine::{self, Order};
use crate::register::Registered;

/// Renews the entry until a later life of this node has registered; says so then. Never ends on a node with a registry of
/// its own.
pub(crate) async fn until_superseded(
    registered: &Registered,
    states: watch::Receiver<State>,
    orders: watch::Receiver<Order>,
) -> String {
    let Some(store) = &registered.shared else { return std::future::pending().await };
    let mut away = false;
    let mut processor = Processor::default();
    loop {
        let (state, draining) = (*states.borrow(), *orders.borrow() != Order::Serve);
        let beat = beat_of(state, draining, processor.busy_permille(&read_stat())).await;
        match renew(store, registered, &beat).await {
            Ok(()) => {
                if std::mem::take(&mut away) {
                    log::info!("registry is back");
                }
            }
            Err(e @ RegistryError::Superseded { .. }) => return Chain(&e).to_string(),
            Err(e) => {
                if !std::mem::replace(&mut away, true) {
                    log::warn!(err:% = Chain(&e); "registry is away, the node serves on");
                }
            }
        }
        tokio::time::sleep(Timing::default().heartbeat).await;
    }
}

async fn renew(store: &Store, registered: &Registered, beat: &Heartbeat) -> Result<(), RegistryError> {
    match store.heartbeat(&registered.life, beat).await {
        Err(RegistryError::NotRegistered { .. }) => {
            store.register(&registered.node, Some(registered.life.epoch)).await?;
            store.heartbeat(&registered.life, beat).await
        }
        result => result,
    }
}

async fn beat_of(state: State, draining: bool, cpu_permille: u32) -> Heartbeat {
    let counted = match state {
        State::Serving(health) => engine::fetch_counts(health).await,
        State::Starting | State::Draining => None,
    };
    let (streams, viewers) = counted.unwrap_or_default();
    Heartbeat {
        load: Load { cpu_permille, streams, viewers, ..Load::default() },
        draining,
        ready: counted.is_some() && !draining,
        watched: Vec::new(),
    }
}

/// How busy the cores were between two looks.
#[derive(Debug, Default)]
struct Processor {
    busy: u64,
    all: u64,
}

impl Processor {
    /// In thousandths of all cores, since the last call. `stat` is the text of `/proc/stat` (proc(5)).
    fn busy_permille(&mut self, stat: &str) -> u32 {
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
        let all: u64 = ticks.iter().sum();
        // Idle, and waiting for a disk.
        let busy = all - ticks.iter().skip(3).take(2).sum::<u64>();
        let (busy_then, all_then) = (std::mem::replace(&mut self.busy, busy), std::mem::replace(&mut self.all, all));
        let since = all.saturating_sub(all_then).max(1);
        u32::try_from((busy.saturating_sub(busy_then) * 1_000 / since).min(1_000)).unwrap_or(1_000)
    }
}

fn read_stat() -> String {
    std::fs::read_to_string("/proc/stat").unwrap_or_default()
}

/// Leaving must not wait longer for a registry that is away.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_counted_between_two_looks() {
        let mut processor = Processor::default();
        processor.busy_permille("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n");
        assert_eq!(processor.busy_permille("cpu  150 0 100 850 100 0 0 0 0 0\n"), 250);
        assert_eq!(processor.busy_permille(""), 0);
        assert_eq!(processor.busy_permille("cpu x"), 0);
    }
}
