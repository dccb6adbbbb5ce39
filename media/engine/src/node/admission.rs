//! Decides whether this node accepts new viewers and publishers, and names a node that might
//! instead. Never closes an existing connection.

use std::sync::Arc;

use headwater_api::config;
use headwater_api::documents::Load;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::node::health::NodeHealthReceiver;
use crate::node::load::LoadMeter;

/// The admission control of all gateways; clones share it.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: config::Limits,
    load_meter: LoadMeter,
    hub: Hub,
    node_health: NodeHealthReceiver,
    drain: CancellationToken,
}

/// Why a client is not admitted. Displays a sentence for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The node drains.
    #[error("This node is shutting down.")]
    Draining,
    /// The node has `limits.max_viewers` viewers with a session.
    #[error("This node already serves {limit} viewers.")]
    Viewers {
        /// The configured maximum.
        limit: usize,
    },
    /// Egress has reached `limits.egress_percent` of the capacity.
    #[error("This node has reached the capacity of its network.")]
    Egress,
    /// CPU use has reached `limits.cpu_percent`.
    #[error("This node is too busy.")]
    Processors,
}

impl Admission {
    /// `drain` is cancelled when the drain starts.
    pub fn new(
        limits: &config::Limits,
        load_meter: &LoadMeter,
        hub: &Hub,
        node_health: &NodeHealthReceiver,
        drain: &CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            limits: limits.clone(),
            load_meter: load_meter.clone(),
            hub: hub.clone(),
            node_health: node_health.clone(),
            drain: drain.clone(),
        }))
    }

    /// Checks whether one more WebRTC or RTMP viewer is admitted.
    ///
    /// # Errors
    /// If the node is full or drains.
    pub fn check_viewer(&self) -> Result<(), AdmissionError> {
        if self.0.drain.is_cancelled() { Err(AdmissionError::Draining) } else { self.check_capacity() }
    }

    /// Checks whether there is capacity for one more viewer, also during a drain. For HLS, whose
    /// players switch to another node by themselves.
    ///
    /// # Errors
    /// If the node is full.
    pub fn check_capacity(&self) -> Result<(), AdmissionError> {
        check_load(&self.0.load_meter.load(&self.0.hub), &self.0.limits)
    }

    /// Checks whether one more publisher is admitted. The limits on viewers and egress do not
    /// apply.
    ///
    /// # Errors
    /// If the node is too busy or drains.
    pub fn check_publisher(&self) -> Result<(), AdmissionError> {
        match self.check_viewer() {
            Err(refusal @ (AdmissionError::Draining | AdmissionError::Processors)) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// True once the drain has started.
    pub fn is_draining(&self) -> bool {
        self.0.drain.is_cancelled()
    }

    /// Base URL of another node with capacity for viewers, if the daemon knows one.
    pub fn alternative_url(&self) -> Option<String> {
        self.0.node_health.latest()?.alternative_url
    }
}

/// Compares a load with the limits. Only open sessions count as viewers: the number of HLS players
/// is an estimate that a client can raise. Egress is not limited if the capacity is unknown.
fn check_load(load: &Load, limits: &config::Limits) -> Result<(), AdmissionError> {
    let limit = limits.max_viewers.get();
    let sessions = load.viewers_by.webrtc + load.viewers_by.rtmp;
    if usize::try_from(sessions).unwrap_or(usize::MAX) >= limit {
        return Err(AdmissionError::Viewers { limit });
    }
    let percent = u64::from(limits.egress_percent.get());
    if percent < 100 && load.egress_capacity_bps > 0 && load.egress_bps >= load.egress_capacity_bps / 100 * percent {
        return Err(AdmissionError::Egress);
    }
    let percent = limits.cpu_percent.get();
    if percent < 100 && load.cpu_permille >= percent * 10 { Err(AdmissionError::Processors) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use headwater_api::documents::ViewerCounts;

    use super::*;

    #[test]
    fn node_is_full_only_by_sessions_egress_or_cpu() {
        let limits = config::Limits {
            max_viewers: 10.try_into().unwrap(),
            egress_percent: 90.try_into().unwrap(),
            cpu_percent: 80.try_into().unwrap(),
            ..config::Limits::default()
        };
        let check = |webrtc, egress_bps, egress_capacity_bps, cpu_permille, expected| {
            let viewers_by = ViewerCounts { webrtc, hls: 1_000, rtmp: 1 };
            let load = Load {
                viewers: u32::try_from(webrtc + 1_001).unwrap(),
                viewers_by,
                egress_bps,
                egress_capacity_bps,
                cpu_permille,
                ..Load::default()
            };
            assert_eq!(check_load(&load, &limits), expected, "{load:?}");
        };
        check(8, 899, 1_000, 799, Ok(()));
        check(9, 0, 1_000, 0, Err(AdmissionError::Viewers { limit: 10 }));
        check(0, 900, 1_000, 0, Err(AdmissionError::Egress));
        check(0, 900, 0, 0, Ok(()));
        check(0, 0, 0, 800, Err(AdmissionError::Processors));
        let never = config::Limits { egress_percent: 100.try_into().unwrap(), ..config::Limits::default() };
        let load = Load { egress_bps: 2_000, egress_capacity_bps: 1_000, cpu_permille: 1_000, ..Load::default() };
        assert_eq!(check_load(&load, &never), Ok(()));
    }

    #[test]
    fn draining_node_admits_only_hls_viewers() {
        let (hub, drain) = (Hub::new(crate::hub::Limits::default()), CancellationToken::new());
        let config = headwater_api::Config::default();
        let load_meter = LoadMeter::new(&config);
        let admission = Admission::new(&config.limits, &load_meter, &hub, &NodeHealthReceiver::disconnected(), &drain);
        assert_eq!(
            (admission.check_viewer(), admission.check_publisher(), admission.check_capacity()),
            (Ok(()), Ok(()), Ok(()))
        );
        drain.cancel();
        let draining = Err(AdmissionError::Draining);
        assert_eq!(
            (admission.check_viewer(), admission.check_publisher(), admission.check_capacity()),
            (draining, draining, Ok(()))
        );
    }
}
