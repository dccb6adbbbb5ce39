//! The daemon's requests to AWS, with the role of its instance: tags, registry instances, secrets,
//! hooks, metrics.
//!
//! RULE: with `metric.rs` the only file that uses the AWS SDK. Every request has a timeout; the SDK
//! retries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{Filter, Instance, InstanceStateName};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use headwater_api::secret::Secret;

use crate::boot::facts::{GROUP_TAG, Region, TAG_PREFIX};
use crate::boot::plan::{CLUSTER_TAG, ROLE_TAG};

/// A request to AWS failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} of {subject} did not work")]
pub(crate) struct AwsError {
    /// The action as IAM policies spell it, to be allowed if it was refused.
    pub(super) action: &'static str,
    pub(super) subject: String,
    pub(super) source: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
impl AwsError {
    /// An error with this cause.
    pub(crate) fn test(cause: &str) -> Self {
        aws_error("ec2:DescribeInstances", "demo", std::io::Error::other(cause.to_owned()))
    }
}

/// A client for one AWS region.
#[derive(Debug, Clone)]
pub(crate) struct Aws(pub(super) SdkConfig);

impl Aws {
    /// Sends no request yet. Credentials are fetched with the first request: those of the
    /// instance's role, from the metadata service that the daemon itself uses, unless the
    /// environment provides others.
    pub(crate) async fn in_region(region: &Region) -> Self {
        let name = aws_config::Region::new(region.name.clone());
        let credentials = DefaultCredentialsChain::builder().region(name.clone());
        let credentials = match imds::Client::builder().endpoint(format!("http://{}", region.metadata)) {
            Ok(client) => credentials.imds_client(client.build()),
            Err(e) => {
                log::warn!(err:% = e; "the metadata service cannot be used for credentials");
                credentials
            }
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(name)
            .credentials_provider(credentials.build().await)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
            .load()
            .await;
        Self(config)
    }

    /// Fetches the tags of an instance that Headwater reads, by key.
    pub(crate) async fn fetch_tags(&self, instance: &str) -> Result<BTreeMap<String, String>, AwsError> {
        let filter = Filter::builder().name("resource-id").values(instance).build();
        let answer = aws_sdk_ec2::Client::new(&self.0).describe_tags().filters(filter).send().await;
        let answer = answer.map_err(|e| aws_error("ec2:DescribeTags", instance, e))?;
        let pairs = answer.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
        Ok(pairs.filter(|(key, _)| key == GROUP_TAG || key.starts_with(TAG_PREFIX)).collect())
    }

    /// Fetches the registry instances of a cluster that are not terminated, sorted by id.
    pub(crate) async fn fetch_registry_instances(&self, cluster: &str) -> Result<Vec<RegistryInstance>, AwsError> {
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
            let page = page.map_err(|e| aws_error("ec2:DescribeInstances", cluster, e))?;
            let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
            found.extend(instances.filter_map(RegistryInstance::from_ec2));
        }
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Fetches how much an instance of this type can send to the internet continuously, in bits per
    /// second; 0 if EC2 does not state it.
    pub(crate) async fn fetch_egress_bps(&self, instance_type: &str) -> Result<u64, AwsError> {
        let client = aws_sdk_ec2::Client::new(&self.0);
        let answer = client.describe_instance_types().instance_types(instance_type.into()).send().await;
        let answer = answer.map_err(|e| aws_error("ec2:DescribeInstanceTypes", instance_type, e))?;
        let Some(found) = answer.instance_types().first() else { return Ok(0) };
        let cards = found.network_info().map(|network| network.network_cards()).unwrap_or_default();
        let gbps = cards.first().and_then(|card| card.baseline_bandwidth_in_gbps()).unwrap_or_default();
        let vcpus = found.v_cpu_info().and_then(|vcpus| vcpus.default_v_cpus()).unwrap_or_default();
        Ok(internet_bps(gbps, vcpus))
    }

    /// Fetches the text of a secret, by name or ARN.
    pub(crate) async fn fetch_secret(&self, id: &str) -> Result<Secret, AwsError> {
        let client = aws_sdk_secretsmanager::Client::new(&self.0);
        let answer = client.get_secret_value().secret_id(id).send().await;
        secret_text(id, &answer.map_err(|e| aws_error(GET_SECRET, id, e))?)
    }

    /// Fetches the text of a secret, by name or ARN; `None` if it does not exist.
    pub(crate) async fn fetch_optional_secret(&self, id: &str) -> Result<Option<Secret>, AwsError> {
        let client = aws_sdk_secretsmanager::Client::new(&self.0);
        match client.get_secret_value().secret_id(id).send().await {
            Ok(answer) => secret_text(id, &answer).map(Some),
            Err(e) if e.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(e) => Err(aws_error(GET_SECRET, id, e)),
        }
    }
}

fn secret_text(id: &str, answer: &GetSecretValueOutput) -> Result<Secret, AwsError> {
    let text = answer.secret_string().map(Secret::new);
    text.ok_or_else(|| aws_error(GET_SECRET, id, std::io::Error::other("it holds bytes, not text")))
}

/// The action that reads a secret.
const GET_SECRET: &str = "secretsmanager:GetSecretValue";

/// An instance that runs the registry of its cluster, or that is starting or stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegistryInstance {
    /// Instance id.
    pub id: String,
    /// Private address at which other nodes reach it.
    pub address: IpAddr,
    /// False while it is starting, stopping or stopped.
    pub running: bool,
}

impl RegistryInstance {
    fn from_ec2(instance: &Instance) -> Option<Self> {
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

/// The transition that a lifecycle hook pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The launch of an instance.
    Launching,
    /// The termination of an instance.
    Terminating,
}

impl Transition {
    fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Self::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        }
    }
}

impl GroupMember {
    /// Sends no request yet.
    pub(crate) fn new(aws: &Aws, group: &str, instance: &str) -> Self {
        let client = aws_sdk_autoscaling::Client::new(&aws.0);
        Self { client, group: group.to_owned(), instance: instance.to_owned() }
    }

    /// Fetches the names of the group's hooks for a transition.
    pub(crate) async fn fetch_hooks(&self, transition: Transition) -> Result<Vec<String>, AwsError> {
        let answer = self.client.describe_lifecycle_hooks().auto_scaling_group_name(&self.group).send().await;
        let answer = answer.map_err(|e| aws_error("autoscaling:DescribeLifecycleHooks", &self.group, e))?;
        let hooks = answer.lifecycle_hooks().iter();
        let matching = hooks.filter(|hook| hook.lifecycle_transition() == Some(transition.as_str()));
        Ok(matching.filter_map(|hook| hook.lifecycle_hook_name().map(str::to_owned)).collect())
    }

    /// Completes the hook so that the instance continues. Returns false if the hook is not active
    /// for it.
    pub(crate) async fn complete_hook(&self, hook: &str) -> Result<bool, AwsError> {
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
            Err(e) if has_no_active_action(&e) => Ok(false),
            Err(e) => Err(aws_error("autoscaling:CompleteLifecycleAction", hook, e)),
        }
    }

    /// Extends the hook's timeout. No error if the hook is not active for the instance.
    pub(crate) async fn send_hook_heartbeat(&self, hook: &str) -> Result<(), AwsError> {
        let answer = self
            .client
            .record_lifecycle_action_heartbeat()
            .auto_scaling_group_name(&self.group)
            .instance_id(&self.instance)
            .lifecycle_hook_name(hook)
            .send()
            .await;
        match answer {
            Err(e) if !has_no_active_action(&e) => {
                Err(aws_error("autoscaling:RecordLifecycleActionHeartbeat", hook, e))
            }
            _ => Ok(()),
        }
    }

    /// Enables or disables scale-in protection. Returns false if the instance is not in service.
    pub(crate) async fn set_protection(&self, protected: bool) -> Result<bool, AwsError> {
        let request = self.client.set_instance_protection().auto_scaling_group_name(&self.group);
        let answer = request.instance_ids(&self.instance).protected_from_scale_in(protected).send().await;
        match answer {
            Ok(_) => Ok(true),
            Err(e) if is_validation_error(&e, "is not in InService") => Ok(false),
            Err(e) => Err(aws_error("autoscaling:SetInstanceProtection", &self.instance, e)),
        }
    }
}

/// Through an internet gateway an instance with 32 vCPUs or more has half of its bandwidth, a
/// smaller one at most 5 Gbit/s (EC2 user guide, "instance network bandwidth").
fn internet_bps(baseline_gbps: f64, vcpus: i32) -> u64 {
    let gbps = if vcpus >= 32 { baseline_gbps / 2.0 } else { baseline_gbps.min(5.0) };
    // The cast saturates, and the value is never negative.
    (gbps * 1e9) as u64
}

/// True for Auto Scaling's error that the hook is not active for this instance.
fn has_no_active_action(error: &impl ProvideErrorMetadata) -> bool {
    is_validation_error(error, "No active Lifecycle Action")
}

fn is_validation_error(error: &impl ProvideErrorMetadata, words: &str) -> bool {
    error.code() == Some("ValidationError") && error.message().is_some_and(|m| m.contains(words))
}

pub(super) fn aws_error(
    action: &'static str,
    subject: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> AwsError {
    AwsError { action, subject: subject.to_owned(), source: Box::new(source) }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one request with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);
const MAX_ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_capacity_is_what_the_internet_gateway_allows() {
        for (gbps, vcpus, expected) in [(0.75, 2, 750_000_000), (12.5, 16, 5_000_000_000), (50.0, 64, 25_000_000_000)] {
            assert_eq!(internet_bps(gbps, vcpus), expected);
        }
    }
}
