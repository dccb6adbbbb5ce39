//! Gathers the facts about this machine before anything is decided: from the machine itself, and on
//! EC2 from its metadata.
//!
//! Only gathers facts; `plan.rs` decides what follows from them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use headwater_api::IpNetwork;
use headwater_api::config::Metadata;
use headwater_api::error::Chain;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::{Deserialize, Serialize};

use crate::aws::imds::{Imds, ImdsError};

/// What is known about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Facts {
    /// Host name; empty if there is none.
    pub host_name: String,
    /// Interface addresses that other machines may reach, in interface order.
    pub addresses: Vec<IpAddr>,
    /// The EC2 instance, if it is one.
    pub instance: Option<Instance>,
}

/// An EC2 instance as described by its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Instance {
    /// `i-…`.
    pub id: String,
    /// `c7g.large`, …
    pub instance_type: String,
    /// `ami-…`.
    pub image: String,
    /// Its region.
    pub region: Region,
    /// `eu-central-1a`, …
    pub zone: String,
    /// Addresses, public ones first.
    pub addresses: Vec<IpAddr>,
    /// Private IPv4 address in the VPC; also part of `addresses`.
    pub private_ipv4: Option<Ipv4Addr>,
    /// Address ranges of its VPC, in which load balancers have their addresses.
    pub vpc_networks: Vec<IpNetwork>,
    /// The tags of Headwater and the Auto Scaling group.
    pub tags: Tags,
    /// True if the instance has an instance profile, so that it can be allowed to read its tags.
    pub has_profile: bool,
    /// Target lifecycle state from Auto Scaling (`InService`, `Terminated`, `Warmed:Stopped`, …);
    /// `None` outside a group.
    pub target_lifecycle_state: Option<String>,
}

/// An AWS region, with the metadata service that provides credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Region {
    /// `eu-central-1`, …
    pub name: String,
    /// Address of the metadata service, which provides the credentials of the instance's role.
    #[serde(skip)]
    pub metadata: SocketAddr,
}

impl Default for Region {
    fn default() -> Self {
        Self { name: String::new(), metadata: Metadata::default().endpoint }
    }
}

/// The instance's tags, and where they were read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Tags {
    /// Read from instance metadata.
    Metadata {
        /// Values by key.
        tags: BTreeMap<String, String>,
    },
    /// Read with `ec2:DescribeTags`, because metadata does not show tags.
    Api {
        /// Values by key.
        tags: BTreeMap<String, String>,
    },
    /// Metadata does not show tags, and no other source was asked yet.
    #[default]
    Hidden,
    /// Neither source could be read.
    Unknown {
        /// The last error.
        #[serde(rename = "why")]
        reason: String,
    },
}

impl Tags {
    /// The value of one tag.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        match self {
            Self::Metadata { tags } | Self::Api { tags } => tags.get(key).map(String::as_str),
            Self::Hidden | Self::Unknown { .. } => None,
        }
    }
}

/// Prefix of all tags that Headwater reads.
pub(crate) const TAG_PREFIX: &str = "headwater:";
/// Set by Auto Scaling on every instance of a group.
pub(crate) const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// Fetches all facts of the machine and its metadata. Also returns the metadata client, if the
/// service exists, for later requests.
///
/// # Errors
/// If metadata is required but unavailable, or invalid.
pub(crate) async fn fetch(metadata: &Metadata) -> Result<(Facts, Option<Imds>), ImdsError> {
    let mut facts = read_local();
    let imds = if metadata.required || on_ec2_hardware() {
        Some(Imds::connect(metadata.endpoint, REQUIRED_TIMEOUT).await?)
    } else {
        Imds::connect_once(metadata.endpoint)
            .await
            .inspect_err(|e| log::debug!(err:% = Chain(e); "no instance metadata: a machine on its own"))
            .ok()
    };
    let Some(mut imds) = imds else { return Ok((facts, None)) };
    facts.instance = Some(fetch_instance(&mut imds).await?);
    Ok((facts, Some(imds)))
}

/// Fetches the instance's current metadata.
pub(crate) async fn fetch_instance(imds: &mut Imds) -> Result<Instance, ImdsError> {
    let document = imds.get(IDENTITY).await?.unwrap_or_default();
    let identity: Identity =
        serde_json::from_str(&document).map_err(|_| ImdsError::invalid_value(IDENTITY, &document))?;
    let private_ipv4 = fetch_ipv4(imds, "meta-data/local-ipv4").await?;
    let public_ipv4 = fetch_ipv4(imds, "meta-data/public-ipv4").await?;
    let mut addresses: Vec<_> = [public_ipv4, private_ipv4].into_iter().flatten().map(IpAddr::V4).collect();
    // Some services return a directory listing where an instance has no IPv6 address.
    addresses.extend(imds.get("meta-data/ipv6").await?.and_then(|text| text.parse::<IpAddr>().ok()));
    Ok(Instance {
        // Fetched separately: the identity document never changes, and tags and hooks refer to this
        // id.
        id: imds.get("meta-data/instance-id").await?.filter(|id| !id.is_empty()).unwrap_or(identity.instance_id),
        instance_type: identity.instance_type,
        image: identity.image_id,
        region: Region { name: identity.region, metadata: imds.endpoint() },
        zone: identity.availability_zone,
        addresses,
        private_ipv4,
        vpc_networks: fetch_vpc_networks(imds).await?,
        tags: fetch_tags(imds).await?,
        has_profile: fetch_has_profile(imds).await?,
        target_lifecycle_state: fetch_target_lifecycle_state(imds).await?,
    })
}

async fn fetch_ipv4(imds: &mut Imds, path: &str) -> Result<Option<Ipv4Addr>, ImdsError> {
    let Some(text) = imds.get(path).await?.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| ImdsError::invalid_value(path, &text))
}

/// Fetches the address ranges of the VPCs of all network interfaces. Skips what cannot be parsed.
async fn fetch_vpc_networks(imds: &mut Imds) -> Result<Vec<IpNetwork>, ImdsError> {
    let interfaces = imds.get(INTERFACES).await?.unwrap_or_default();
    let mut networks = Vec::new();
    for mac in interfaces.lines().map(|line| line.trim().trim_end_matches('/')).take(MAX_INTERFACES) {
        for blocks in ["vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks"] {
            // An interface without IPv6 has no IPv6 ranges.
            let text = imds.get(&format!("{INTERFACES}{mac}/{blocks}")).await?.unwrap_or_default();
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                match line.parse() {
                    Ok(network) if networks.contains(&network) => {}
                    Ok(network) => networks.push(network),
                    Err(e) => log::warn!(err:% = Chain(&e); "an address range of the VPC cannot be used"),
                }
            }
        }
    }
    Ok(networks)
}

/// Target lifecycle state; `Terminated` means that Auto Scaling is terminating this instance.
/// `None` outside a group.
pub(crate) async fn fetch_target_lifecycle_state(imds: &mut Imds) -> Result<Option<String>, ImdsError> {
    Ok(imds.get("meta-data/autoscaling/target-lifecycle-state").await?.filter(|state| !state.is_empty()))
}

/// Fetches the spot interruption notice, which comes two minutes ahead: its action (`terminate`,
/// `stop`, …).
pub(crate) async fn fetch_spot_notice(imds: &mut Imds) -> Result<Option<String>, ImdsError> {
    #[derive(Deserialize)]
    struct Notice {
        action: String,
    }
    let path = "meta-data/spot/instance-action";
    let Some(text) = imds.get(path).await? else { return Ok(None) };
    let notice: Notice = serde_json::from_str(&text).map_err(|_| ImdsError::invalid_value(path, &text))?;
    Ok(Some(notice.action))
}

/// Fetches Headwater's tags and the group name; [`Tags::Hidden`] if metadata does not show tags.
pub(crate) async fn fetch_tags(imds: &mut Imds) -> Result<Tags, ImdsError> {
    let Some(keys) = imds.get("meta-data/tags/instance").await? else { return Ok(Tags::Hidden) };
    let mut tags = BTreeMap::new();
    let is_relevant = |key: &&str| *key == GROUP_TAG || key.starts_with(TAG_PREFIX);
    for key in keys.lines().map(str::trim).filter(is_relevant).take(MAX_TAGS) {
        // Removed between the two requests.
        if let Some(value) = imds.get(&format!("meta-data/tags/instance/{key}")).await? {
            tags.insert(key.to_owned(), value);
        }
    }
    Ok(Tags::Metadata { tags })
}

/// True if the instance has an instance profile. Either path is enough: after a profile is attached
/// to a running instance, they appear one after the other.
pub(crate) async fn fetch_has_profile(imds: &mut Imds) -> Result<bool, ImdsError> {
    for path in ["meta-data/iam/info", "meta-data/iam/security-credentials/"] {
        if imds.get(path).await?.is_some_and(|text| !text.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The fields of the instance identity document that are used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    instance_id: String,
    instance_type: String,
    #[serde(default)]
    image_id: String,
    region: String,
    availability_zone: String,
}

/// Reads the facts that the machine itself holds. Unreadable facts stay empty: no plan depends on
/// them alone.
fn read_local() -> Facts {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut addresses = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let address = interface.address.and_then(|a| {
            let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        addresses.extend(address.filter(|a| up && is_reachable(*a) && !addresses.contains(a)));
    }
    Facts { host_name: host_name.trim().to_owned(), addresses, instance: None }
}

/// True for an address that identifies this machine on other machines too.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

/// True if the firmware names EC2: there a missing metadata service is a fault, and must not make
/// the node standalone.
fn on_ec2_hardware() -> bool {
    std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").is_ok_and(|vendor| vendor.trim() == "Amazon EC2")
}

/// Folder with one entry per network interface, named by its MAC address.
const INTERFACES: &str = "meta-data/network/interfaces/macs/";
const IDENTITY: &str = "dynamic/instance-identity/document";
/// How long to wait for metadata where it is required; after that the service manager restarts the
/// daemon.
const REQUIRED_TIMEOUT: Duration = Duration::from_secs(120);
/// EC2 allows 50 tags per instance.
const MAX_TAGS: usize = 50;
/// No instance type has more network interfaces than this.
const MAX_INTERFACES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_facts_exclude_addresses_that_other_machines_cannot_reach() {
        let facts = read_local();
        assert!(facts.addresses.iter().all(|a| is_reachable(*a)), "{facts:?}");
        assert!(!facts.host_name.contains(char::is_whitespace), "{facts:?}");
        for hidden in ["127.0.0.1", "169.254.1.2", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!is_reachable(hidden.parse().unwrap()), "{hidden}");
        }
    }
}
