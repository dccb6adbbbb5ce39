//! The few questions this daemon asks of AWS itself, with the role of its instance: tags, who runs the registry, secrets.
//!
//! RULE: the only file that names the AWS SDK. Every question is bounded in time; the SDK does the retrying.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_autoscaling::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::Filter;

use crate::facts::GROUP_TAG;
use crate::facts::TAG_PREFIX;
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
    /// Asks nobody yet; credentials are fetched with the first question.
    pub(crate) async fn in_region(region: &str) -> Self {
        let times = TimeoutConfig::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .operation_attempt_timeout(ATTEMPT_PATIENCE)
            .operation_timeout(PATIENCE)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
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

    /// Private addresses of the running registry nodes of a cluster, sorted.
    pub(crate) async fn find_registry(&self, cluster: &str) -> Result<Vec<IpAddr>, AwsError> {
        let filter = |name: String, value: &str| Filter::builder().name(name).values(value).build();
        let mut pages = aws_sdk_ec2::Client::new(&self.0)
            .describe_instances()
            .filters(filter(format!("tag:{CLUSTER_TAG}"), cluster))
            .filters(filter(format!("tag:{ROLE_TAG}"), "registry"))
            .filters(filter("instance-state-name".to_owned(), "running"))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| error("ec2:DescribeInstances", cluster, e))?;
            let instances = page.reservations().iter().flat_map(|reservation| reservation.instances());
            found.extend(instances.filter_map(|i| i.private_ip_address()?.parse::<IpAddr>().ok()));
        }
        found.sort_unstable();
        Ok(found)
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

fn error(action: &'static str, subject: &str, source: impl std::error::Error + Send + Sync + 'static) -> AwsError {
    AwsError { action, subject: subject.to_owned(), source: Box::new(source) }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(5);
/// For one question with all its attempts.
const PATIENCE: Duration = Duration::from_secs(12);
const ATTEMPTS: u32 = 3;
