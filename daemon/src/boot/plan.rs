//! Decides what this node is: a pure function of facts and settings.
//!
//! Performs no I/O. A value in the configuration file wins over a tag, and a tag over all else.
//! There is no default role inside a group: a guess would put an unknown node in front of viewers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use headwater_api::Config;
use headwater_api::config::{RegistryKind, Role};
use serde::Serialize;

use crate::boot::facts::{Facts, GROUP_TAG, Instance, Region, Tags};
use crate::boot::settings::Settings;

/// The role, identity and configuration of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Source of the role; the role itself is in `engine`.
    pub role_from: ValueSource,
    /// Source of the node id; the id itself is in `engine`.
    pub id_from: ValueSource,
    /// Addresses that the node registers, public ones first.
    pub addresses: Vec<IpAddr>,
    /// The node's cluster; `None` if it is standalone.
    pub cluster: Option<Cluster>,
    /// Address of its mongod besides loopback; `None` unless it is a registry node.
    pub mongod: Option<SocketAddr>,
    /// The node's Auto Scaling group.
    #[serde(rename = "group")]
    pub scaling_group: Option<GroupIdentity>,
    /// False while Auto Scaling keeps the instance warm: the node then neither registers nor
    /// serves.
    #[serde(rename = "wanted")]
    pub in_service: bool,
    /// The engine's configuration.
    pub engine: Config,
}

/// Identifies an instance in its Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GroupIdentity {
    /// The group's name.
    pub name: String,
    /// The group's region.
    pub region: Region,
    /// The instance's id.
    pub instance: String,
}

/// A cluster, as described by the tags of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    /// Value of `headwater:cluster`.
    pub name: String,
    /// Value of `headwater:node-group`; empty without one.
    pub node_group: String,
    /// How its registry is found.
    pub registry: RegistryLocation,
    /// The region that holds its secrets.
    pub region: Region,
    /// Port of the mongod on each registry node.
    pub port: u16,
}

impl Cluster {
    /// Name of the replica set that its registry nodes form. It lets a node of another cluster
    /// detect a wrong address, and need not be unique.
    pub(crate) fn replica_set(&self) -> String {
        let sanitize = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let name: String = self.name.chars().map(sanitize).take(MAX_ID_BYTES).collect();
        format!("headwater-{name}")
    }
}

/// How the registry of a cluster is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegistryLocation {
    /// Value of `headwater:registry`: hosts, or the id of a secret.
    Tag(String),
    /// By the cluster tag of its instances.
    Discover,
}

/// Where a planned value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValueSource {
    /// The configuration file.
    File,
    /// A tag of the instance.
    Tag,
    /// The instance's id.
    InstanceId,
    /// The host name.
    HostName,
    /// Built-in default.
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "configuration file",
            Self::Tag => "tag",
            Self::InstanceId => "instance id",
            Self::HostName => "host name",
            Self::Default => "default",
        })
    }
}

/// Why no plan could be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// In a group, but without a role.
    #[error("this instance belongs to an Auto Scaling group but has no `{ROLE_TAG}` tag; {hint}")]
    NoRole {
        /// How to set the tag.
        hint: String,
    },
    /// In a cluster, but without a role.
    #[error(
        "this instance has the tag `{CLUSTER_TAG}` but no `{ROLE_TAG}` tag; set it to \"origin\", \"edge\", \"registry\" \
         or \"standalone\""
    )]
    ClusterWithoutRole,
    /// An instance that could be allowed to read its tags, and could not read them.
    #[error(
        "the tags of this instance could not be read: instance metadata does not show them (InstanceMetadataTags in the \
         launch template), and {reason}"
    )]
    UnreadableTags {
        /// Why `ec2:DescribeTags` gave none.
        reason: String,
    },
    /// An unknown role.
    #[error("tag `{ROLE_TAG}` is {value:?}; expected \"origin\", \"edge\", \"registry\" or \"standalone\"")]
    UnknownRole {
        /// The tag's value.
        value: String,
    },
    /// A registry node without instance metadata to find its peers by.
    #[error(
        "[node] role is \"registry\", which finds its peers by the tags of EC2 instances, and there is no instance metadata here"
    )]
    RegistryWithoutMetadata,
    /// A registry node in a cluster whose registry tag names another registry.
    #[error("role is \"registry\", but tag `{REGISTRY_TAG}` names another registry; remove one of them")]
    RegistryTagConflict,
    /// A registry node without a private address.
    #[error("role is \"registry\", but instance metadata shows no private IPv4 address to listen at")]
    NoPrivateAddress,
    /// A cluster role without a cluster tag.
    #[error("role is {role:?}, which needs a cluster, but this instance has no `{CLUSTER_TAG}` tag")]
    NoCluster {
        /// `origin`, `edge` or `registry`.
        role: &'static str,
    },
    /// A role that needs a shared registry, on a machine without tags to find it by.
    #[error("[node] role is {role:?}, which needs a shared registry; a single node is \"standalone\"")]
    NotOnEc2 {
        /// `origin` or `edge`.
        role: &'static str,
    },
    /// An id that does not fit into logs, URLs and file names.
    #[error("[node] id is {0:?}; 1 to {MAX_ID_BYTES} letters, digits, '-', '_' and '.' are allowed")]
    InvalidId(String),
}

/// Role of a node: `origin`, `edge`, `registry`, `standalone`.
pub(crate) const ROLE_TAG: &str = "headwater:role";
/// Name of the node's cluster.
pub(crate) const CLUSTER_TAG: &str = "headwater:cluster";
/// Location of the registry, if it is not found by tags.
const REGISTRY_TAG: &str = "headwater:registry";
/// Group of nearby nodes, usually a region.
const NODE_GROUP_TAG: &str = "headwater:node-group";
/// Prefix of the target states of an instance that Auto Scaling keeps in a warm pool.
pub(crate) const WARM_POOL_PREFIX: &str = "Warmed:";
/// CPU limit on EC2, where the instance runs nothing else: above it the node refuses new viewers.
const EC2_CPU_PERCENT: NonZeroU32 = NonZeroU32::new(90).expect("a literal above zero");
/// Maximum length of a node id.
const MAX_ID_BYTES: usize = 64;

/// Makes the plan.
pub(crate) fn plan(facts: &Facts, settings: &Settings) -> Result<Plan, PlanError> {
    let mut engine = settings.config.clone();
    let instance = facts.instance.as_ref();
    let (role, role_from) = choose_role(instance, settings)?;
    let (id, id_from) = choose_id(facts, settings)?;
    let addresses = match (engine.node.addresses.as_slice(), instance) {
        // Without configured addresses the engine advertises those of the interfaces, and follows
        // their changes.
        ([], None) => facts.addresses.clone(),
        ([], Some(instance)) => {
            engine.node.addresses.clone_from(&instance.addresses);
            instance.addresses.clone()
        }
        (configured, _) => configured.to_vec(),
    };
    if instance.is_some() && !settings.is_set("limits", "cpu_percent") {
        engine.limits.cpu_percent = EC2_CPU_PERCENT;
    }
    if instance.is_some() && role != Role::Standalone && !settings.is_set("health", "listen") {
        // Load balancers send their health checks over the network; the security group limits other
        // access.
        let port = engine.health.listen.port();
        engine.health.listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    }
    if let Some(instance) = instance.filter(|_| !settings.is_set("http", "trusted_proxies")) {
        // The security group limits who can connect from there; load balancers do.
        engine.http.trusted_proxies.clone_from(&instance.vpc_networks);
    }
    // A node whose file names the registry needs neither tags nor AWS secrets to find it.
    let names_registry = engine.registry.kind == RegistryKind::MongoDb && engine.relay.secret_file.is_some();
    let port = engine.mongod.port.get();
    let cluster = match role {
        Role::Standalone => None,
        Role::Origin | Role::Edge if names_registry => None,
        Role::Origin | Role::Edge | Role::Registry => Some(cluster_from_tags(role, instance, port)?),
    };
    let mongod = match (&cluster, role) {
        (Some(cluster), Role::Registry) => Some(SocketAddr::new(private_address(cluster, instance)?, port)),
        _ => None,
    };
    (engine.node.role, engine.node.id) = (role, id);
    Ok(Plan {
        role_from,
        id_from,
        addresses,
        cluster,
        mongod,
        scaling_group: instance.and_then(group_identity),
        in_service: !instance
            .and_then(|i| i.target_lifecycle_state.as_deref())
            .is_some_and(|s| s.starts_with(WARM_POOL_PREFIX)),
        engine,
    })
}

/// The instance's group, if its tags name one; lifecycle hooks and scale-in protection use it.
fn group_identity(instance: &Instance) -> Option<GroupIdentity> {
    let name = instance.tags.get(GROUP_TAG)?.to_owned();
    Some(GroupIdentity { name, region: instance.region.clone(), instance: instance.id.clone() })
}

fn choose_role(instance: Option<&Instance>, settings: &Settings) -> Result<(Role, ValueSource), PlanError> {
    if settings.is_set("node", "role") {
        return Ok((settings.config.node.role, ValueSource::File));
    }
    let Some(instance) = instance else { return Ok((Role::Standalone, ValueSource::Default)) };
    match instance.tags.get(ROLE_TAG) {
        Some("origin") => Ok((Role::Origin, ValueSource::Tag)),
        Some("edge") => Ok((Role::Edge, ValueSource::Tag)),
        Some("standalone") => Ok((Role::Standalone, ValueSource::Tag)),
        Some("registry") => Ok((Role::Registry, ValueSource::Tag)),
        Some(value) => Err(PlanError::UnknownRole { value: value.chars().take(MAX_ID_BYTES).collect() }),
        None if is_in_group(instance) => Err(PlanError::NoRole { hint: missing_role_hint(&instance.tags) }),
        None if instance.tags.get(CLUSTER_TAG).is_some() => Err(PlanError::ClusterWithoutRole),
        None => unreadable_tags(instance).map_or(Ok((Role::Standalone, ValueSource::Default)), Err),
    }
}

/// The error of an instance with an instance profile whose tags could not be read: they are unknown
/// rather than absent. Without a profile nobody can have meant the instance to read tags.
fn unreadable_tags(instance: &Instance) -> Option<PlanError> {
    match &instance.tags {
        Tags::Unknown { reason } if instance.has_profile => Some(PlanError::UnreadableTags { reason: reason.clone() }),
        _ => None,
    }
}

/// True if the instance belongs to a group; metadata shows that even where it does not show tags.
fn is_in_group(instance: &Instance) -> bool {
    instance.target_lifecycle_state.is_some() || instance.tags.get(GROUP_TAG).is_some()
}

fn missing_role_hint(tags: &Tags) -> String {
    match tags {
        Tags::Metadata { .. } => "set it on the group, with PropagateAtLaunch".to_owned(),
        Tags::Api { .. } => "ec2:DescribeTags shows none: set it on the group, with PropagateAtLaunch".to_owned(),
        Tags::Hidden => {
            "instance metadata shows no tags: set InstanceMetadataTags to enabled in the launch template".to_owned()
        }
        Tags::Unknown { reason } => format!(
            "instance metadata shows no tags (InstanceMetadataTags in the launch template) and ec2:DescribeTags gave none: {reason}"
        ),
    }
}

fn cluster_from_tags(role: Role, instance: Option<&Instance>, port: u16) -> Result<Cluster, PlanError> {
    let error = if role == Role::Registry {
        PlanError::RegistryWithoutMetadata
    } else {
        PlanError::NotOnEc2 { role: role.as_str() }
    };
    let instance = instance.ok_or(error)?;
    let role = role.as_str();
    let tags = &instance.tags;
    let tag = |key: &str| tags.get(key).filter(|value| !value.is_empty());
    Ok(Cluster {
        name: tag(CLUSTER_TAG)
            .ok_or_else(|| unreadable_tags(instance).unwrap_or(PlanError::NoCluster { role }))?
            .to_owned(),
        node_group: tag(NODE_GROUP_TAG).unwrap_or_default().to_owned(),
        registry: tag(REGISTRY_TAG).map_or(RegistryLocation::Discover, |place| RegistryLocation::Tag(place.to_owned())),
        region: instance.region.clone(),
        port,
    })
}

/// Private address at which other nodes reach this node's mongod.
fn private_address(cluster: &Cluster, instance: Option<&Instance>) -> Result<IpAddr, PlanError> {
    if cluster.registry != RegistryLocation::Discover {
        return Err(PlanError::RegistryTagConflict);
    }
    instance.and_then(|instance| instance.private_ipv4).map(IpAddr::V4).ok_or(PlanError::NoPrivateAddress)
}

fn choose_id(facts: &Facts, settings: &Settings) -> Result<(String, ValueSource), PlanError> {
    if settings.is_set("node", "id") {
        let id = &settings.config.node.id;
        let fits = !id.is_empty() && id.len() <= MAX_ID_BYTES && id.chars().all(is_id_char);
        return if fits { Ok((id.clone(), ValueSource::File)) } else { Err(PlanError::InvalidId(id.clone())) };
    }
    let instance = facts.instance.as_ref().and_then(|i| Some((sanitize_id(&i.id)?, ValueSource::InstanceId)));
    let host = || Some((sanitize_id(&facts.host_name)?, ValueSource::HostName));
    Ok(instance.or_else(host).unwrap_or_else(|| (settings.config.node.id.clone(), ValueSource::Default)))
}

/// Makes a node id from a host name or instance id; `None` if no character is usable.
fn sanitize_id(host_name: &str) -> Option<String> {
    let id: String = host_name.chars().map(|c| if is_id_char(c) { c } else { '-' }).take(MAX_ID_BYTES).collect();
    Some(id).filter(|id| id.contains(|c: char| c.is_ascii_alphanumeric()))
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
