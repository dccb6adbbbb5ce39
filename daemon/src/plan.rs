//! Decides what this node is: a pure function of facts and settings.
//!
//! Must not ask anybody anything. What the operator wrote into the file wins over tags, and those over the rest. There is
//! no default role inside a group: a guess would put an unknown node in front of viewers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use headwater_api::Config;
use headwater_api::config::{RegistryKind, Role};
use serde::Serialize;

use crate::facts::{Facts, GROUP_TAG, Instance, Region, Tags};
use crate::settings::Settings;

/// What this node will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Where the role comes from; the role itself is in `engine`.
    pub role_from: Source,
    /// Where the name comes from; the name itself is in `engine`.
    pub id_from: Source,
    /// Addresses it registers with, public ones first.
    pub addresses: Vec<IpAddr>,
    /// The cluster it belongs to; none if it is standalone.
    pub cluster: Option<Cluster>,
    /// Where its mongod listens, beside loopback: of a registry node alone.
    pub mongod: Option<SocketAddr>,
    /// The Auto Scaling group it belongs to.
    pub group: Option<Membership>,
    /// False while Auto Scaling keeps it warm: then it neither registers nor serves.
    pub wanted: bool,
    /// What the engine is started with.
    pub engine: Config,
}

/// An instance in its Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Membership {
    /// The group's name.
    pub name: String,
    /// Where the group is.
    pub region: Region,
    /// The instance's id, as the group knows it.
    pub instance: String,
}

/// A cluster as its nodes find each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    /// `headwater:cluster`.
    pub name: String,
    /// `headwater:node-group`; empty without one.
    pub node_group: String,
    /// Where its registry is.
    pub registry: RegistryPlace,
    /// Where its secrets are.
    pub region: Region,
    /// Where the mongod of each registry node listens.
    pub port: u16,
}

impl Cluster {
    /// The name of the replica set that its registry nodes form: it tells a node of another cluster that it is at the wrong
    /// address, and need not be unique.
    pub(crate) fn replica_set(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let name: String = self.name.chars().map(plain).take(MAX_ID_BYTES).collect();
        format!("headwater-{name}")
    }
}

/// How the registry of a cluster is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegistryPlace {
    /// `headwater:registry` says so: hosts, or the id of a secret.
    Tag(String),
    /// Its nodes carry the cluster's tag.
    Discover,
}

/// Who decided a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The configuration file.
    File,
    /// A tag of the instance.
    Tag,
    /// The instance's id.
    InstanceId,
    /// The host name.
    HostName,
    /// Nobody else did.
    Default,
}

impl fmt::Display for Source {
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

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// In a group, but nothing says as what.
    #[error("this instance belongs to an Auto Scaling group but has no `{ROLE_TAG}` tag; {hint}")]
    NoRole {
        /// Where the tag was looked for.
        hint: String,
    },
    /// A role that does not exist.
    #[error("tag `{ROLE_TAG}` is {value:?}; expected \"origin\", \"edge\", \"registry\" or \"standalone\"")]
    UnknownRole {
        /// As it stands in the tag.
        value: String,
    },
    /// A registry node that cannot find its peers.
    #[error(
        "[node] role is \"registry\", which finds its peers by the tags of EC2 instances, and here is no instance metadata"
    )]
    RegistryAlone,
    /// A registry node whose cluster has its registry elsewhere.
    #[error(
        "role is \"registry\", but tag `{REGISTRY_TAG}` says that the registry is elsewhere; take one of them away"
    )]
    RegistryElsewhere,
    /// A registry node that its peers cannot reach.
    #[error("role is \"registry\", but instance metadata shows no private IPv4 address to listen at")]
    NoPrivateAddress,
    /// A node of a cluster that does not say which.
    #[error("role is {role:?}, which needs a cluster, but this instance has no `{CLUSTER_TAG}` tag")]
    NoCluster {
        /// `origin`, `edge` or `registry`.
        role: &'static str,
    },
    /// A role that shares its registry, on a machine that has no tags to find it by.
    #[error("[node] role is {role:?}, which wants a registry that nodes share; a node on its own is \"standalone\"")]
    Alone {
        /// `origin` or `edge`.
        role: &'static str,
    },
    /// The name would not fit into logs, URLs and file names.
    #[error("[node] id is {0:?}; 1 to {MAX_ID_BYTES} letters, digits, '-', '_' and '.' are allowed")]
    Id(String),
}

/// Which part a node plays: `origin`, `edge`, `registry`, `standalone`.
pub(crate) const ROLE_TAG: &str = "headwater:role";
/// Which nodes belong together.
pub(crate) const CLUSTER_TAG: &str = "headwater:cluster";
/// Where the registry is, if it is not to be found by tags.
const REGISTRY_TAG: &str = "headwater:registry";
/// Nodes that are near each other: a region, usually.
const NODE_GROUP_TAG: &str = "headwater:node-group";
/// How the target states of an instance begin that Auto Scaling keeps in a warm pool.
pub(crate) const WARMED: &str = "Warmed:";
/// Busier than this an instance takes no newcomers: nobody else uses it.
const CPU_PERCENT: NonZeroU32 = NonZeroU32::new(90).expect("a literal above zero");
/// Bytes in a node's name at most.
const MAX_ID_BYTES: usize = 64;

/// Decides.
pub(crate) fn plan(facts: &Facts, settings: &Settings) -> Result<Plan, PlanError> {
    let mut engine = settings.config.clone();
    let instance = facts.instance.as_ref();
    let (role, role_from) = role(instance, settings)?;
    let (id, id_from) = id(facts, settings)?;
    let addresses = match (engine.node.addresses.as_slice(), instance) {
        // Without addresses of its own the engine offers those of the interfaces, and follows them when they change.
        ([], None) => facts.addresses.clone(),
        ([], Some(instance)) => {
            engine.node.addresses.clone_from(&instance.addresses);
            instance.addresses.clone()
        }
        (written, _) => written.to_vec(),
    };
    if instance.is_some() && !settings.says("limits", "cpu_percent") {
        engine.limits.cpu_percent = CPU_PERCENT;
    }
    if instance.is_some() && matches!(role, Role::Origin | Role::Edge) && !settings.says("health", "listen") {
        // The balancers ask from elsewhere in the network; who else may is up to the security group.
        let port = engine.health.listen.port();
        engine.health.listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    }
    // Who names the registry in the file needs no tags and no secrets of AWS to find it.
    let told = engine.registry.kind == RegistryKind::MongoDb && engine.relay.secret_file.is_some();
    let port = engine.mongod.port.get();
    let cluster = match role {
        Role::Standalone => None,
        Role::Origin | Role::Edge if told => None,
        Role::Origin | Role::Edge | Role::Registry => Some(cluster(role, instance, port)?),
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
        group: instance.and_then(membership),
        wanted: !instance.and_then(|i| i.target_lifecycle_state.as_deref()).is_some_and(|s| s.starts_with(WARMED)),
        engine,
    })
}

/// Its group, if its tags tell the name: hooks and protection go by that.
fn membership(instance: &Instance) -> Option<Membership> {
    let name = instance.tags.get(GROUP_TAG)?.to_owned();
    Some(Membership { name, region: instance.region.clone(), instance: instance.id.clone() })
}

fn role(instance: Option<&Instance>, settings: &Settings) -> Result<(Role, Source), PlanError> {
    if settings.says("node", "role") {
        return Ok((settings.config.node.role, Source::File));
    }
    let Some(instance) = instance else { return Ok((Role::Standalone, Source::Default)) };
    match instance.tags.get(ROLE_TAG) {
        Some("origin") => Ok((Role::Origin, Source::Tag)),
        Some("edge") => Ok((Role::Edge, Source::Tag)),
        Some("standalone") => Ok((Role::Standalone, Source::Tag)),
        Some("registry") => Ok((Role::Registry, Source::Tag)),
        Some(value) => Err(PlanError::UnknownRole { value: value.chars().take(MAX_ID_BYTES).collect() }),
        None if in_group(instance) => Err(PlanError::NoRole { hint: hint(&instance.tags) }),
        None => Ok((Role::Standalone, Source::Default)),
    }
}

/// True if Auto Scaling looks after the instance; its metadata shows that even where it does not show tags.
fn in_group(instance: &Instance) -> bool {
    instance.target_lifecycle_state.is_some() || instance.tags.get(GROUP_TAG).is_some()
}

fn hint(tags: &Tags) -> String {
    match tags {
        Tags::Metadata { .. } => "set it on the group, with PropagateAtLaunch".to_owned(),
        Tags::Api { .. } => "ec2:DescribeTags shows none: set it on the group, with PropagateAtLaunch".to_owned(),
        Tags::Hidden => {
            "instance metadata shows no tags: set InstanceMetadataTags to enabled in the launch template".to_owned()
        }
        Tags::Unknown { why } => format!(
            "instance metadata shows no tags (InstanceMetadataTags in the launch template) and ec2:DescribeTags gave none: {why}"
        ),
    }
}

fn cluster(role: Role, instance: Option<&Instance>, port: u16) -> Result<Cluster, PlanError> {
    let alone =
        if role == Role::Registry { PlanError::RegistryAlone } else { PlanError::Alone { role: role.as_str() } };
    let instance = instance.ok_or(alone)?;
    let role = role.as_str();
    let tags = &instance.tags;
    let tag = |key: &str| tags.get(key).filter(|value| !value.is_empty());
    Ok(Cluster {
        name: tag(CLUSTER_TAG).ok_or(PlanError::NoCluster { role })?.to_owned(),
        node_group: tag(NODE_GROUP_TAG).unwrap_or_default().to_owned(),
        registry: tag(REGISTRY_TAG).map_or(RegistryPlace::Discover, |place| RegistryPlace::Tag(place.to_owned())),
        region: instance.region.clone(),
        port,
    })
}

/// Where other nodes reach the mongod of this one.
fn private_address(cluster: &Cluster, instance: Option<&Instance>) -> Result<IpAddr, PlanError> {
    if cluster.registry != RegistryPlace::Discover {
        return Err(PlanError::RegistryElsewhere);
    }
    instance.and_then(|instance| instance.private_ipv4).map(IpAddr::V4).ok_or(PlanError::NoPrivateAddress)
}

fn id(facts: &Facts, settings: &Settings) -> Result<(String, Source), PlanError> {
    if settings.says("node", "id") {
        let id = &settings.config.node.id;
        let fits = !id.is_empty() && id.len() <= MAX_ID_BYTES && id.chars().all(legal);
        return if fits { Ok((id.clone(), Source::File)) } else { Err(PlanError::Id(id.clone())) };
    }
    let instance = facts.instance.as_ref().and_then(|i| Some((id_of(&i.id)?, Source::InstanceId)));
    let host = || Some((id_of(&facts.host_name)?, Source::HostName));
    Ok(instance.or_else(host).unwrap_or_else(|| (settings.config.node.id.clone(), Source::Default)))
}

/// A name made of a host name, if anything of it can be used.
fn id_of(host_name: &str) -> Option<String> {
    let id: String = host_name.chars().map(|c| if legal(c) { c } else { '-' }).take(MAX_ID_BYTES).collect();
    Some(id).filter(|id| id.contains(|c: char| c.is_ascii_alphanumeric()))
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
