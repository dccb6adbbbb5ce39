//! Watches instance metadata while the node serves: for the wish of Auto Scaling or of EC2 that it serves no more.

use std::time::Duration;

use headwater_api::error::Chain;

use crate::facts::{fetch_spot_notice, fetch_tags, fetch_target_lifecycle_state};
use crate::imds::{Imds, ImdsError};
use crate::plan::{CLUSTER_TAG, ROLE_TAG, WARMED};

/// Why a node is to serve no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Farewell {
    /// In words.
    pub why: String,
    /// True if the instance stays, in the warm pool of its group, and may be wanted again.
    pub warm: bool,
}

/// Waits until somebody wants this node to end, and says why. For ever, on a machine on its own.
///
/// A role or cluster tag that changes while the node runs is told in the log: it counts from the next start.
pub(crate) async fn until_unwanted(imds: Option<&mut Imds>) -> Farewell {
    let Some(imds) = imds else { return std::future::pending().await };
    let mut first = None;
    let mut failing = false;
    loop {
        match look(imds).await {
            Ok(Look { end: Some(farewell), .. }) => return farewell,
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
        tokio::time::sleep(PAUSE).await;
    }
}

struct Look {
    end: Option<Farewell>,
    tags: [Option<String>; 2],
}

async fn look(imds: &mut Imds) -> Result<Look, ImdsError> {
    let target = fetch_target_lifecycle_state(imds).await?.unwrap_or_default();
    let end = match wish(&target) {
        Some(farewell) => Some(farewell),
        None => fetch_spot_notice(imds)
            .await?
            .map(|action| Farewell { why: format!("spot notice: EC2 will {action} this instance"), warm: false }),
    };
    let tags = fetch_tags(imds).await?;
    Ok(Look { end, tags: [ROLE_TAG, CLUSTER_TAG].map(|key| tags.get(key).map(str::to_owned)) })
}

/// What Auto Scaling's target state means for a node that serves.
fn wish(target: &str) -> Option<Farewell> {
    match target {
        "Terminated" | "Warmed:Terminated" => {
            Some(Farewell { why: "Auto Scaling ends this instance".to_owned(), warm: false })
        }
        warmed if warmed.starts_with(WARMED) => {
            Some(Farewell { why: "Auto Scaling puts this instance back into its warm pool".to_owned(), warm: true })
        }
        _ => None,
    }
}

/// A spot notice comes two minutes ahead; AWS advises to look every five seconds.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_leave_for_good_when_its_instance_ends_and_for_a_while_when_it_returns_to_the_warm_pool() {
        let warm = |target: &str| wish(target).map(|farewell| farewell.warm);
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
