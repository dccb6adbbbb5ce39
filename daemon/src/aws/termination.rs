//! Polls instance metadata while the node serves, and reports when Auto Scaling or EC2 is about to
//! stop the instance.

use std::time::Duration;

use headwater_api::error::Chain;

use crate::aws::imds::{Imds, ImdsError};
use crate::boot::facts::{fetch_spot_notice, fetch_tags, fetch_target_lifecycle_state};
use crate::boot::plan::{CLUSTER_TAG, ROLE_TAG, WARM_POOL_PREFIX};

/// Why a node must stop serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TerminationReason {
    /// The reason, for the log.
    pub reason: String,
    /// True if the instance stays in the warm pool of its group and may be started again.
    pub to_warm_pool: bool,
}

/// Waits until the instance is to be stopped, and returns the reason. Never returns on a machine
/// without instance metadata.
///
/// A change of the role or cluster tag is only logged: it takes effect at the next start.
pub(crate) async fn wait_for_termination(imds: Option<&mut Imds>) -> TerminationReason {
    let Some(imds) = imds else { return std::future::pending().await };
    let mut first = None;
    let mut failing = false;
    loop {
        match poll_metadata(imds).await {
            Ok(MetadataPoll { termination: Some(reason), .. }) => return reason,
            Ok(poll) => {
                failing = false;
                let previous = first.get_or_insert_with(|| poll.tags.clone());
                if *previous != poll.tags {
                    log::warn!("a tag of this instance has changed; the change takes effect at the next start");
                    *previous = poll.tags;
                }
            }
            Err(e) if !failing => {
                failing = true;
                log::warn!(err:% = Chain(&e); "instance metadata no longer answers");
            }
            Err(_) => {}
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

struct MetadataPoll {
    termination: Option<TerminationReason>,
    tags: [Option<String>; 2],
}

async fn poll_metadata(imds: &mut Imds) -> Result<MetadataPoll, ImdsError> {
    let target = fetch_target_lifecycle_state(imds).await?.unwrap_or_default();
    let end = match termination_reason(&target) {
        Some(reason) => Some(reason),
        None => fetch_spot_notice(imds).await?.map(|action| TerminationReason {
            reason: format!("spot notice: EC2 will {action} this instance"),
            to_warm_pool: false,
        }),
    };
    let tags = fetch_tags(imds).await?;
    Ok(MetadataPoll { termination: end, tags: [ROLE_TAG, CLUSTER_TAG].map(|key| tags.get(key).map(str::to_owned)) })
}

/// Maps the target lifecycle state of a serving node to a reason to stop.
fn termination_reason(target: &str) -> Option<TerminationReason> {
    match target {
        "Terminated" | "Warmed:Terminated" => {
            Some(TerminationReason { reason: "Auto Scaling terminates this instance".to_owned(), to_warm_pool: false })
        }
        target if target.starts_with(WARM_POOL_PREFIX) => Some(TerminationReason {
            reason: "Auto Scaling returns this instance to its warm pool".to_owned(),
            to_warm_pool: true,
        }),
        _ => None,
    }
}

/// A spot notice comes two minutes ahead; AWS recommends to poll every five seconds.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_return_to_the_warm_pool_keeps_the_daemon_running() {
        let to_warm_pool = |target: &str| termination_reason(target).map(|reason| reason.to_warm_pool);
        for target in ["Warmed:Running", "Warmed:Stopped", "Warmed:Hibernated"] {
            assert_eq!(to_warm_pool(target), Some(true), "{target}");
        }
        for target in ["Terminated", "Warmed:Terminated"] {
            assert_eq!(to_warm_pool(target), Some(false), "{target}");
        }
        for target in ["InService", "Standby", "Detached", ""] {
            assert_eq!(to_warm_pool(target), None, "{target}");
        }
    }
}
