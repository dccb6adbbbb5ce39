//! Whether this node takes newcomers, and who else might. Who is here already is never asked to go for being one too many.

use std::sync::Arc;

use headwater_api::config;
use headwater_api::node::Load;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::load::Meter;
use crate::standing::Told;

/// The doorman of all gateways; clones share it.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: config::Limits,
    meter: Meter,
    hub: Hub,
    told: Told,
    drain: CancellationToken,
}

/// Why somebody is not let in, in a sentence for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It will end.
    #[error("This node is going down.")]
    Draining,
    /// Too many are here.
    #[error("This node already serves {limit} viewers.")]
    Viewers {
        /// Viewers at most.
        limit: usize,
    },
    /// Its network is used up.
    #[error("This node sends as much as its network carries.")]
    Egress,
    /// Its processors are used up.
    #[error("This node is too busy.")]
    Processors,
}

impl Admission {
    /// By these limits; `drain` is cancelled when the node begins to end.
    pub fn new(limits: &config::Limits, meter: &Meter, hub: &Hub, told: &Told, drain: &CancellationToken) -> Self {
        Self(Arc::new(Inner {
            limits: limits.clone(),
            meter: meter.clone(),
            hub: hub.clone(),
            told: told.clone(),
            drain: drain.clone(),
        }))
    }

    /// Whether one more viewer may come who stays for a while.
    ///
    /// # Errors
    /// If the node is full or will end.
    pub fn viewer(&self) -> Result<(), Refusal> {
        if self.0.drain.is_cancelled() { Err(Refusal::Draining) } else { self.room() }
    }

    /// Whether there is room for one more viewer. For HLS, whose viewers go elsewhere by themselves when a node ends.
    ///
    /// # Errors
    /// If the node is full.
    pub fn room(&self) -> Result<(), Refusal> {
        judge(&self.0.meter.load(&self.0.hub), &self.0.limits)
    }

    /// Whether one more publisher may come. Publishers need processors, but send nothing to viewers by themselves.
    ///
    /// # Errors
    /// If the node is too busy or will end.
    pub fn publisher(&self) -> Result<(), Refusal> {
        match self.viewer() {
            Err(refusal @ (Refusal::Draining | Refusal::Processors)) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// True once the node has begun to end.
    pub fn is_draining(&self) -> bool {
        self.0.drain.is_cancelled()
    }

    /// Base URL of a node with room for viewers, if one is known.
    pub fn elsewhere(&self) -> Option<String> {
        self.0.told.last()?.elsewhere
    }
}

/// Whether a node with this load has room. What it cannot send is only known where its capacity is.
fn judge(load: &Load, limits: &config::Limits) -> Result<(), Refusal> {
    let limit = limits.max_viewers.get();
    if usize::try_from(load.viewers).unwrap_or(usize::MAX) >= limit {
        return Err(Refusal::Viewers { limit });
    }
    let percent = u64::from(limits.egress_percent.get());
    if percent < 100 && load.egress_capacity_bps > 0 && load.egress_bps >= load.egress_capacity_bps / 100 * percent {
        return Err(Refusal::Egress);
    }
    let percent = limits.cpu_percent.get();
    if percent < 100 && load.cpu_permille >= percent * 10 { Err(Refusal::Processors) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_full_by_viewers_egress_or_processors_and_only_then() {
        let limits = config::Limits {
            max_viewers: 10.try_into().unwrap(),
            egress_percent: 90.try_into().unwrap(),
            cpu_percent: 80.try_into().unwrap(),
            ..config::Limits::default()
        };
        let check = |viewers, egress_bps, egress_capacity_bps, cpu_permille, expected| {
            let load = Load { viewers, egress_bps, egress_capacity_bps, cpu_permille, ..Load::default() };
            assert_eq!(judge(&load, &limits), expected, "{load:?}");
        };
        check(9, 899, 1_000, 799, Ok(()));
        check(10, 0, 1_000, 0, Err(Refusal::Viewers { limit: 10 }));
        check(0, 900, 1_000, 0, Err(Refusal::Egress));
        check(0, 900, 0, 0, Ok(()));
        check(0, 0, 0, 800, Err(Refusal::Processors));
        let never = config::Limits { egress_percent: 100.try_into().unwrap(), ..config::Limits::default() };
        let load = Load { egress_bps: 2_000, egress_capacity_bps: 1_000, cpu_permille: 1_000, ..Load::default() };
        assert_eq!(judge(&load, &never), Ok(()));
    }

    #[test]
    fn a_node_that_ends_lets_nobody_in_but_who_watches_hls() {
        let (hub, drain) = (Hub::new(crate::hub::Limits::default()), CancellationToken::new());
        let config = headwater_api::Config::default();
        let meter = Meter::new(&config);
        let door = Admission::new(&config.limits, &meter, &hub, &Told::by_nobody(), &drain);
        assert_eq!((door.viewer(), door.publisher(), door.room()), (Ok(()), Ok(()), Ok(())));
        drain.cancel();
        let gone = Err(Refusal::Draining);
        assert_eq!((door.viewer(), door.publisher(), door.room()), (gone, gone, Ok(())));
    }
}
