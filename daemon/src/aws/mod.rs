//! Requests to AWS: instance metadata, EC2, Secrets Manager, Auto Scaling and CloudWatch.
//!
//! RULE: the only room that names an AWS SDK.

pub(crate) mod capacity;
pub(crate) mod client;
pub(crate) mod imds;
pub(crate) mod lifecycle_hooks;
pub(crate) mod metric;
pub(crate) mod scaling_metric;
pub(crate) mod termination;
