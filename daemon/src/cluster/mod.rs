//! The node as a member of its cluster: the shared registry and its credentials, the heartbeat, the
//! health report, the administrator, the first policies of the apps.

pub(crate) mod administrator;
pub(crate) mod app_defaults;
pub(crate) mod cluster_secrets;
pub(crate) mod heartbeat;
pub(crate) mod node_health;
pub(crate) mod open_registry;
pub(crate) mod shared_registry;
