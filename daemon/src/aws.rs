//! The few questions this daemon asks of AWS itself, with the role of its instance: tags, who runs the registry, secrets.
//!
//! RULE: the only file that names the AWS SDK, with its folder. Every question is bounded in time; the SDK does the retrying.

mod metric;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName};

pub(crate) use metric::Percent;

use crate::facts::{GROUP_TAG, Region, TAG_PREFIX};
use crate::plan::{CLUSTER_TAG, ROLE_TAG};

/// AWS did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{action} of {subject} did not work")]
pub(crate) struct AwsError {
    /// As IAM policies spell it: what to allow, if it was refused.
    action: &'static str,
    subject: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A secret's text. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever must have it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// AWS in one region.
#[derive(Debug, Clone)]
pub(crate) struct Aws(SdkConfig);

impl Aws {
    /// Asks nobody yet; credentials are fetched with the first question: those of the instance's role from the metadata service that
    /// the daemon itself asks, unless the environment has others.
    pub(crate) async fn in_region(region: &Region) -> Self {
        let name = aws_config::Region::new(region.name.clone());
        let credentials = DefaultCredentialsChain::builder().region(name.clone());
        let credentials = match imds::Client::builder().endpoint(format!("http://{}", region.metadata)) {
            Ok(client) => credentials.imds_client(client.build()),
            Err(e) => {
                log::warn!(err:% = e; "the metadata service cannot be asked for credentials");
                credentials
            }
        };
        let times = TimeoutConfig::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .operation_attempt_timeout(ATTEMPT_PATIENCE)
            .operation_timeout(PATIENCE)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(name)
            .credentials_provider(credentials.build().await)
            .timeout_config(times)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .load()
            .await;
        Self(config)
    }

    /// The tags of an instance that concern us, by key.
    pub(crate) async fn fetch_tags(&self, instance: &str) -> Result<BTreeMap<String, String>, AwsError> {
        let filter = Filter::builder().name("resource-id").values(instance).build();
        let answer = aws_sdk_ec2::Client::new(&self.0).describe_tags().filters(filter).send().await;
        let answer = answer.map_err(|e| error("ec2:DescribeTags", instance, e))?;
        let pairs = answer.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
        Ok(pairs.filter(|(key, _)| key == GROUP_TAG || key.starts_with(TAG_PREFIX)).collect())
    }

    /// The registry nodes of a cluster that have not ended, sorted by id.
    pub(crate) async fn find_registry(&self, cluster: &str) -> Result<Vec<RegistryInstance>, AwsError> {
        let filter = |name: String, value: &str| Filter::builder().name(name).values(value).build();
        let states = ["pending", "running", "stopping", "stopped"].map(str::to_owned).to_vec();
        let mut pages = aws_sdk_ec2::Client::new(&self.0)
            .describe_instances()
            .filters(filter(format!("tag:{CLUSTER_TAG}"), cluster))
            .filters(filter(format!("tag:{ROLE_TAG}"), "registry"))
            .filters(Filter::builder().name("instance-state-name").set_values(Some(states)).build())
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| error("ec2:DescribeInstances", cluster, e))?;
            let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
            found.extend(instances.filter_map(RegistryInstance::of));
        }
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// What an instance of this type can send to the internet for as long as it likes, in bits a second; 0 if EC2 does not
    /// say.
    pub(crate) async fn fetch_egress_bps(&self, instance_type: &str) -> Result<u64, AwsError> {
        let client = aws_sdk_ec2::Client::new(&self.0);
        let answer = client.describe_instance_types().instance_types(instance_type.into()).send().await;
        let answer = answer.map_err(|e| error("ec2:DescribeInstanceTypes", instance_type, e))?;
        let Some(found) = answer.instance_types().first() else { return Ok(0) };
        let cards = found.network_info().map(|network| network.network_cards()).unwrap_or_default();
        let gbps = cards.first().and_then(|card| card.baseline_bandwidth_in_gbps()).unwrap_or_default();
        let cores = found.v_cpu_info().and_then(|cores| cores.default_v_cpus()).unwrap_or_default();
        Ok(internet_bps(gbps, cores))
    }

    /// A secret's text, by name or ARN.
    pub(crate) async fn fetch_secret(&self, id: &str) -> Result<Secret, AwsError> {
        let action = "secretsmanager:GetSecretValue";
        let client = aws_sdk_secretsmanager::Client::new(&self.0);
        let answer = client.get_secret_value().secret_id(id).send().await.map_err(|e| error(action, id, e))?;
        match answer.secret_string() {
            Some(text) => Ok(Secret(text.to_owned())),
            None => Err(error(action, id, std::io::Error::other("it holds bytes, not text"))),
        }
    }
}

/// An instance that runs the registry of its cluster, or will, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryInstance {
    /// `i-…`.
    pub id: String,
    /// Where the others reach it.
    pub address: IpAddr,
    /// False before it has started and while it is stopped.
    pub running: bool,
}

impl RegistryInstance {
    fn of(instance: &Instance) -> Option<Self> {
        let state = instance.state().and_then(|state| state.name());
        Some(Self {
            id: instance.instance_id()?.to_owned(),
            address: instance.private_ip_address()?.parse().ok()?,
            running: state == Some(&InstanceStateName::Running),
        })
    }
}

/// An instance as a member of its Auto Scaling group.
#[derive(Debug)]
pub(crate) struct GroupMember {
    client: aws_sdk_autoscaling::Client,
    group: String,
    instance: String,
}

/// What a lifecycle hook holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// An instance on its way into service.
    Launching,
    /// An instance on its way out.
    Terminating,
}

impl Transition {
    fn word(self) -> &'static str {
        match self {
            Self::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Self::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        }
    }
}

impl GroupMember {
    /// Asks nobody yet.
    pub(crate) fn new(aws: &Aws, group: &str, instance: &str) -> Self {
        let client = aws_sdk_autoscaling::Client::new(&aws.0);
        Self { client, group: group.to_owned(), instance: instance.to_owned() }
    }

    /// Names of the group's hooks for a transition.
    pub(crate) async fn fetch_hooks(&self, transition: Transition) -> Result<Vec<String>, AwsError> {
        let answer = self.client.describe_lifecycle_hooks().auto_scaling_group_name(&self.group).send().await;
        let answer = answer.map_err(|e| error("autoscaling:DescribeLifecycleHooks", &self.group, e))?;
        let hooks = answer.lifecycle_hooks().iter();
        let ours = hooks.filter(|hook| hook.lifecycle_transition() == Some(transition.word()));
        Ok(ours.filter_map(|hook| hook.lifecycle_hook_name().map(str::to_owned)).collect())
    }

    /// Lets the instance go on. False if this hook does not hold it.
    pub(crate) async fn complete(&self, hook: &str) -> Result<bool, AwsError> {
        let answer = self
            .client
            .complete_lifecycle_action()
            .auto_scaling_group_name(&self.group)
            .instance_id(&self.instance)
            .lifecycle_hook_name(hook)
            .lifecycle_action_result("CONTINUE")
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(e) if holds_nothing(&e) => Ok(false),
            Err(e) => Err(error("autoscaling:CompleteLifecycleAction", hook, e)),
        }
    }

    /// Starts the hook's time-out anew. A hook that does not hold the instance is no error.
    pub(crate) async fn hold(&self, hook: &str) -> Result<(), AwsError> {
        let answer = self
            .client
            .record_lifecycle_action_heartbeat()
            .auto_scaling_group_name(&self.group)
            .instance_id(&self.instance)
            .lifecycle_hook_name(hook)
            .send()
            .await;
        match answer {
            Err(e) if !holds_nothing(&e) => Err(error("autoscaling:RecordLifecycleActionHeartbeat", hook, e)),
            _ => Ok(()),
        }
    }

    /// Keeps scale-in away from the instance, or no longer. False if the instance is not in service yet, or not any more.
    pub(crate) async fn protect(&self, protected: bool) -> Result<bool, AwsError> {
        let request = self.client.set_instance_protection().auto_scaling_group_name(&self.group);
        let answer = request.instance_ids(&self.instance).protected_from_scale_in(protected).send().await;
        match answer {
            Ok(_) => Ok(true),
            Err(e) if is_invalid(&e, "is not in InService") => Ok(false),
            Err(e) => Err(error("autoscaling:SetInstanceProtection", &self.instance, e)),
        }
    }
}

/// Towards an internet gateway an instance with 32 vCPUs or more has half of its bandwidth, a smaller one 5 Gbit/s at most
/// (EC2 user guide, "instance network bandwidth").
fn internet_bps(baseline_gbps: f64, cores: i32) -> u64 {
    let gbps = if cores >= 32 { baseline_gbps / 2.0 } else { baseline_gbps.min(5.0) };
    // Saturates, and nothing is negative here.
    (gbps * 1e9) as u64
}

/// Auto Scaling's words for "this hook does not hold this instance".
fn holds_nothing(error: &impl ProvideErrorMetadata) -> bool {
    is_invalid(error, "No active Lifecycle Action")
}

fn is_invalid(error: &impl ProvideErrorMetadata, words: &str) -> bool {
    error.code() == Some("ValidationError") && error.message().is_some_and(|m| m.contains(words))
}

fn error(action: &'static str, subject: &str, source: impl std::error::Error + Send + Sync + 'static) -> AwsError {
    AwsError { action, subject: subject.to_owned(), source: Box::new(source) }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(5);
/// For one question with all its attempts.
const PATIENCE: Duration = Duration::from_secs(12);
const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_get_what_the_internet_gateway_lets_through() {
        for (gbps, cores, expected) in [(0.75, 2, 750_000_000), (12.5, 16, 5_000_000_000), (50.0, 64, 25_000_000_000)] {
            assert_eq!(internet_bps(gbps, cores), expected);
        }
    }
}
