//! Watches instance metadata while the node serves: for the wish of Auto Scaling or of EC2 that this instance ends.

use std::time::Duration;

use headwater_api::error::Chain;

use crate::facts::{fetch_spot_notice, fetch_tags, fetch_target_lifecycle_state};
use crate::imds::{Imds, ImdsError};
use crate::plan::{CLUSTER_TAG, ROLE_TAG};

/// Waits until somebody wants this instance to end, and says why. For ever, on a machine on its own.
///
/// A role or cluster tag that changes while the node runs is told in the log: it counts from the next start.
pub(crate) async fn until_unwanted(imds: Option<&mut Imds>) -> String {
    let Some(imds) = imds else { return std::future::pending().await };
    let mut first = None;
    let mut failing = false;
    loop {
        match look(imds).await {
            Ok(Look { end: Some(why), .. }) => return why,
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
    end: Option<String>,
    tags: [Option<String>; 2],
}

async fn look(imds: &mut Imds) -> Result<Look, ImdsError> {
    let end = if fetch_target_lifecycle_state(imds).await?.as_deref() == Some("Terminated") {
        Some("Auto Scaling ends this instance".to_owned())
    } else {
        fetch_spot_notice(imds).await?.map(|action| format!("spot notice: EC2 will {action} this instance"))
    };
    let tags = fetch_tags(imds).await?;
    Ok(Look { end, tags: [ROLE_TAG, CLUSTER_TAG].map(|key| tags.get(key).map(str::to_owned)) })
}

/// A spot notice comes two minutes ahead; AWS advises to look every five seconds.
const PAUSE: Duration = Duration::from_secs(5);
