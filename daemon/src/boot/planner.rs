//! Makes the plan from the configuration file and the machine; on EC2, repeatedly until it calls
//! for work.
//!
//! A tag can be corrected while the instance runs, so an instance without a valid plan stays out of
//! service and logs the reason.

use std::time::Duration;

use headwater_api::error::Chain;

use crate::aws::client::Aws;
use crate::aws::imds::Imds;
use crate::aws::lifecycle_hooks::WarmInstance;
use crate::boot::error::BootError;
use crate::boot::facts;
use crate::boot::facts::{Facts, Tags};
use crate::boot::plan;
use crate::boot::plan::{Plan, PlanError};
use crate::boot::settings::Settings;
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::SharedRegistry;
use crate::process::service_manager::ServiceManager;

/// Fetches all facts. Tags that instance metadata does not show are fetched with
/// `ec2:DescribeTags`.
pub(crate) async fn fetch_facts(settings: &Settings) -> Result<(Facts, Option<Imds>), BootError> {
    let (mut facts, imds) = facts::fetch(&settings.config.metadata).await?;
    if let Some(instance) = facts.instance.as_mut().filter(|instance| instance.tags == Tags::Hidden) {
        let answer = Aws::in_region(&instance.region).await.fetch_tags(&instance.id).await;
        instance.tags = match answer {
            Ok(tags) => Tags::Api { tags },
            Err(e) => Tags::Unknown { reason: Chain(&e).to_string() },
        };
    }
    Ok((facts, imds))
}

/// Finds the registry of the node's cluster, or the reason why it is unavailable. `None` for a node
/// without a cluster.
pub(crate) async fn find_cluster_registry(facts: &Facts, plan: &Plan) -> Option<Result<SharedRegistry, String>> {
    let (cluster, instance) = (plan.cluster.as_ref()?, facts.instance.as_ref()?);
    let aws = Aws::in_region(&instance.region).await;
    Some(shared_registry::find(&aws, cluster).await.map_err(|e| Chain(&e).to_string()))
}

/// Waits until the plan calls for work, and returns it. The node is out of service until then.
pub(crate) async fn wait_for_work(
    settings: &Settings,
    manager: &ServiceManager,
) -> Result<(Facts, Plan, Option<Imds>), BootError> {
    let mut last_reason = String::new();
    let mut warm_instance = WarmInstance::default();
    loop {
        let (facts, imds) = fetch_facts(settings).await?;
        let (reason, warm_plan) = match plan::plan(&facts, settings) {
            Ok(plan) if plan.in_service => return Ok((facts, plan, imds)),
            Ok(plan) => ("Auto Scaling keeps this instance warm".to_owned(), Some(plan)),
            Err(e) if is_final(&e) => return Err(e.into()),
            Err(e) => (Chain(&e).to_string(), None),
        };
        if reason != last_reason {
            log::warn!(err = reason.as_str(); "out of service");
            manager.status(&format!("out of service: {reason}"));
            last_reason = reason;
        }
        if let Some(plan) = &warm_plan {
            let target = facts.instance.as_ref().and_then(|i| i.target_lifecycle_state.as_deref());
            warm_instance.complete_hooks(plan, target.unwrap_or_default()).await;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// True for a mistake in the configuration file: the file is read only once.
fn is_final(error: &PlanError) -> bool {
    matches!(error, PlanError::InvalidId(_) | PlanError::NotOnEc2 { .. } | PlanError::RegistryWithoutMetadata)
}

/// Interval between two reads of the tags and the lifecycle state.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
