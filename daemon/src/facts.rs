//! What can be found out about this machine, before anything is decided: from the machine itself, and on EC2 from its
//! metadata.
//!
//! Facts are only gathered here; what follows from them is for `plan.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use headwater_api::config::Metadata;
use headwater_api::error::Chain;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::{Deserialize, Serialize};

use crate::imds::{Imds, ImdsError};

/// A machine as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Facts {
    /// Its host name; empty if it has none.
    pub host_name: String,
    /// Addresses of its interfaces that other machines may reach, in the order of the interfaces.
    pub addresses: Vec<IpAddr>,
    /// The EC2 instance it is, if it is one.
    pub instance: Option<Instance>,
}

/// An EC2 instance as its metadata describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Instance {
    /// `i-…`.
    pub id: String,
    /// `c7g.large`, …
    pub instance_type: String,
    /// `ami-…`.
    pub image: String,
    /// Where it is.
    pub region: Region,
    /// `eu-central-1a`, …
    pub zone: String,
    /// Public addresses first, as others reach it.
    pub addresses: Vec<IpAddr>,
    /// Its address inside the VPC, which is among them.
    pub private_ipv4: Option<Ipv4Addr>,
    /// Those tags that concern us.
    pub tags: Tags,
    /// Where Auto Scaling wants it to go (`InService`, `Terminated`, `Warmed:Stopped`, …), if it belongs to a group.
    pub target_lifecycle_state: Option<String>,
}

/// A region of AWS, as an instance in it asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Region {
    /// `eu-central-1`, …
    pub name: String,
    /// The metadata service, which has the credentials of the instance's role.
    #[serde(skip)]
    pub metadata: SocketAddr,
}

impl Default for Region {
    fn default() -> Self {
        Self { name: String::new(), metadata: Metadata::default().endpoint }
    }
}

/// Tags, and how they came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Tags {
    /// From metadata.
    Metadata {
        /// By key.
        tags: BTreeMap<String, String>,
    },
    /// From `ec2:DescribeTags`, because metadata does not show them.
    Api {
        /// By key.
        tags: BTreeMap<String, String>,
    },
    /// Metadata does not show them, and nobody else was asked yet.
    #[default]
    Hidden,
    /// Neither has them, for this reason.
    Unknown {
        /// The last error.
        why: String,
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

/// All tags of ours begin so.
pub(crate) const TAG_PREFIX: &str = "headwater:";
/// Set by Auto Scaling on every instance of a group.
pub(crate) const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// All facts that the machine and its metadata hold. Gives the metadata service too, if there is one, to ask again.
///
/// # Errors
/// If metadata must be there and is not, or contradicts itself.
pub(crate) async fn fetch(metadata: &Metadata) -> Result<(Facts, Option<Imds>), ImdsError> {
    let mut facts = read_local();
    let imds = if metadata.required || on_ec2_hardware() {
        Some(Imds::connect(metadata.endpoint, REQUIRED_PATIENCE).await?)
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

/// What the instance says about itself now.
pub(crate) async fn fetch_instance(imds: &mut Imds) -> Result<Instance, ImdsError> {
    let document = imds.get(IDENTITY).await?.unwrap_or_default();
    let identity: Identity = serde_json::from_str(&document).map_err(|_| ImdsError::value(IDENTITY, &document))?;
    let private_ipv4 = fetch_ipv4(imds, "meta-data/local-ipv4").await?;
    let public_ipv4 = fetch_ipv4(imds, "meta-data/public-ipv4").await?;
    let mut addresses: Vec<_> = [public_ipv4, private_ipv4].into_iter().flatten().map(IpAddr::V4).collect();
    // Where an instance has no IPv6, some services give a listing in its place.
    addresses.extend(imds.get("meta-data/ipv6").await?.and_then(|text| text.parse::<IpAddr>().ok()));
    Ok(Instance {
        // Asked for by itself: the document is the same for a whole life, and this is what tags and hooks go by.
        id: imds.get("meta-data/instance-id").await?.filter(|id| !id.is_empty()).unwrap_or(identity.instance_id),
        instance_type: identity.instance_type,
        image: identity.image_id,
        region: Region { name: identity.region, metadata: imds.endpoint() },
        zone: identity.availability_zone,
        addresses,
        private_ipv4,
        tags: fetch_tags(imds).await?,
        target_lifecycle_state: fetch_target_lifecycle_state(imds).await?,
    })
}

async fn fetch_ipv4(imds: &mut Imds, path: &str) -> Result<Option<Ipv4Addr>, ImdsError> {
    let Some(text) = imds.get(path).await?.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| ImdsError::value(path, &text))
}

/// `Terminated` means that Auto Scaling wants to end this instance. `None` outside a group.
pub(crate) async fn fetch_target_lifecycle_state(imds: &mut Imds) -> Result<Option<String>, ImdsError> {
    Ok(imds.get("meta-data/autoscaling/target-lifecycle-state").await?.filter(|state| !state.is_empty()))
}

/// The notice, two minutes ahead, that a spot instance will be taken away: its action (`terminate`, `stop`, …).
pub(crate) async fn fetch_spot_notice(imds: &mut Imds) -> Result<Option<String>, ImdsError> {
    #[derive(Deserialize)]
    struct Notice {
        action: String,
    }
    let path = "meta-data/spot/instance-action";
    let Some(text) = imds.get(path).await? else { return Ok(None) };
    let notice: Notice = serde_json::from_str(&text).map_err(|_| ImdsError::value(path, &text))?;
    Ok(Some(notice.action))
}

/// Our tags and the group's name; hidden if metadata does not show tags.
pub(crate) async fn fetch_tags(imds: &mut Imds) -> Result<Tags, ImdsError> {
    let Some(keys) = imds.get("meta-data/tags/instance").await? else { return Ok(Tags::Hidden) };
    let mut tags = BTreeMap::new();
    let ours = |key: &&str| *key == GROUP_TAG || key.starts_with(TAG_PREFIX);
    for key in keys.lines().map(str::trim).filter(ours).take(MAX_TAGS) {
        // Gone between the two questions: then it is not there.
        if let Some(value) = imds.get(&format!("meta-data/tags/instance/{key}")).await? {
            tags.insert(key.to_owned(), value);
        }
    }
    Ok(Tags::Metadata { tags })
}

/// The parts of the instance identity document that are used.
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

/// The facts that the machine itself holds. What cannot be read is left empty: no plan depends on it alone.
fn read_local() -> Facts {
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut addresses = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let address = interface.address.and_then(|a| {
            let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        });
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        addresses.extend(address.filter(|a| up && reachable(*a) && !addresses.contains(a)));
    }
    Facts { host_name: host_name.trim().to_owned(), addresses, instance: None }
}

/// True for an address that means this machine on other machines too.
fn reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

/// True if the firmware says so: there a missing metadata service is a fault, and must not make a lone node.
fn on_ec2_hardware() -> bool {
    std::fs::read_to_string("/sys/class/dmi/id/sys_vendor").is_ok_and(|vendor| vendor.trim() == "Amazon EC2")
}

const IDENTITY: &str = "dynamic/instance-identity/document";
/// How long metadata may be late where it must be there; then the service manager starts anew.
const REQUIRED_PATIENCE: Duration = Duration::from_secs(120);
/// EC2 allows 50 tags on an instance.
const MAX_TAGS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_facts_hold_no_address_that_means_another_machine_elsewhere() {
        let facts = read_local();
        assert!(facts.addresses.iter().all(|a| reachable(*a)), "{facts:?}");
        assert!(!facts.host_name.contains(char::is_whitespace), "{facts:?}");
        for hidden in ["127.0.0.1", "169.254.1.2", "::1", "fe80::1", "0.0.0.0"] {
            assert!(!reachable(hidden.parse().unwrap()), "{hidden}");
        }
    }
}
