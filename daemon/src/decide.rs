//! From the file and the machine to a plan; and, on EC2, again and again until there is one that calls for work.
//!
//! A tag can be put right while the instance runs, so an instance without a plan stays out of service and says why.

use std::time::Duration;

use headwater_api::error::Chain;

use crate::asg::Warm;
use crate::aws::Aws;
use crate::boot::BootError;
use crate::facts::{self, Facts, Tags};
use crate::imds::Imds;
use crate::lifecycle::ServiceManager;
use crate::plan::{self, Plan, PlanError};
use crate::settings::Settings;
use crate::shared_registry::{self, SharedRegistry};

/// All facts; tags that metadata hides are asked of AWS.
pub(crate) async fn fetch_facts(settings: &Settings) -> Result<(Facts, Option<Imds>), BootError> {
    let (mut facts, imds) = facts::fetch(&settings.config.metadata).await?;
    if let Some(instance) = facts.instance.as_mut().filter(|instance| instance.tags == Tags::Hidden) {
        let answer = Aws::in_region(&instance.region).await.fetch_tags(&instance.id).await;
        instance.tags = match answer {
            Ok(tags) => Tags::Api { tags },
            Err(e) => Tags::Unknown { why: Chain(&e).to_string() },
        };
    }
    Ok((facts, imds))
}

/// The registry of the node's cluster, or why it cannot be had. `None` for a node without a cluster.
pub(crate) async fn find_registry(facts: &Facts, plan: &Plan) -> Option<Result<SharedRegistry, String>> {
    let (cluster, instance) = (plan.cluster.as_ref()?, facts.instance.as_ref()?);
    let aws = Aws::in_region(&instance.region).await;
    Some(shared_registry::find(&aws, cluster).await.map_err(|e| Chain(&e).to_string()))
}

/// Waits until this machine has something to do, and says what. Out of service until then.
pub(crate) async fn until_wanted(
    settings: &Settings,
    manager: &ServiceManager,
) -> Result<(Facts, Plan, Option<Imds>), BootError> {
    let mut said = String::new();
    let mut warm = Warm::default();
    loop {
        let (facts, imds) = fetch_facts(settings).await?;
        let (why, kept) = match plan::plan(&facts, settings) {
            Ok(plan) if plan.wanted => return Ok((facts, plan, imds)),
            Ok(plan) => ("Auto Scaling keeps this instance warm".to_owned(), Some(plan)),
            Err(e) if settled(&e) => return Err(e.into()),
            Err(e) => (Chain(&e).to_string(), None),
        };
        if why != said {
            log::warn!(err = why.as_str(); "out of service");
            manager.status(&format!("out of service: {why}"));
            said = why;
        }
        if let Some(plan) = &kept {
            let target = facts.instance.as_ref().and_then(|i| i.target_lifecycle_state.as_deref());
            warm.let_go(plan, target.unwrap_or_default()).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// True for a mistake in the file: it is read once.
fn settled(error: &PlanError) -> bool {
    matches!(error, PlanError::Id(_) | PlanError::Alone { .. } | PlanError::RegistryAlone)
}

/// Between two looks at tags that are wrong.
const PAUSE: Duration = Duration::from_secs(5);
