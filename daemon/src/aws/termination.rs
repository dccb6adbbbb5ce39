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
            Ok(MetadataPoll { termination: Some(farewell), .. }) => return farewell,
            Ok(look) => {
                failing = false;
                let before = first.get_or_insert_with(|| look.tags.clone());
                if *before != look.tags {
                    log::warn!("a tag of this instance has changed; it counts from the next start");
                    *before = look.tags;
                }
            }
            Err(e) if !failing => {
                failing = true;
                log::warn!(err:% = Chain(&e); "instance metadata does not answer any more");
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
        Some(farewell) => Some(farewell),
        None => fetch_spot_notice(imds)
            .await?
            .map(|action| TerminationReason { reason: format!("spot notice: EC2 will {action} this instance"), to_warm_pool: false }),
    };
    let tags = fetch_tags(imds).await?;
    Ok(MetadataPoll { termination: end, tags: [ROLE_TAG, CLUSTER_TAG].map(|key| tags.get(key).map(str::to_owned)) })
}

/// Maps the target lifecycle state of a serving node to a reason to stop.
fn termination_reason(target: &str) -> Option<TerminationReason> {
    match target {
        "Terminated" | "Warmed:Terminated" => {
            Some(TerminationReason { reason: "Auto Scaling ends this instance".to_owned(), to_warm_pool: false })
        }
        warmed if warmed.starts_with(WARM_POOL_PREFIX) => {
            Some(TerminationReason { reason: "Auto Scaling puts this instance back into its warm pool".to_owned(), to_warm_pool: true })
        }
        _ => None,
    }
}

/// A spot notice comes two minutes ahead; AWS recommends to poll every five seconds.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_leave_for_good_when_its_instance_ends_and_for_a_while_when_it_returns_to_the_warm_pool() {
        let warm = |target: &str| termination_reason(target).map(|farewell| farewell.to_warm_pool);
        for target in ["Warmed:Running", "Warmed:Stopped", "Warmed:Hibernated"] {
            assert_eq!(warm(target), Some(true), "{target}");
        }
        for target in ["Terminated", "Warmed:Terminated"] {
            assert_eq!(warm(target), Some(false), "{target}");
        }
        for target in ["InService", "Standby", "Detached", ""] {
            assert_eq!(warm(target), None, "{target}");
        }
    }
}
