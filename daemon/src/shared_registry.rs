//! Where the MongoDB of a cluster is and how to log in: from the plan, the tags of its nodes and a secret, to one
//! connection string.
//!
//! The secret `headwater/CLUSTER/registry` holds `{"username": …, "password": …}`, or a whole connection string.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::aws::{Aws, AwsError, Secret};
use crate::plan::{Cluster, RegistryPlace};

/// A registry that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SharedRegistry {
    /// `host:port` of each of its nodes; empty if the secret alone knows.
    pub hosts: Vec<String>,
    /// The secret that holds the password.
    pub secret: String,
    /// Everything in one, for the driver.
    #[serde(skip)]
    pub uri: Secret,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedRegistryError {
    /// AWS did not say.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Nobody runs it.
    #[error("no running instance has the tags of a registry node of cluster {0:?}")]
    Nobody(String),
    /// The secret cannot be used; it is not shown.
    #[error("secret {0} holds neither a user name and password in JSON nor a connection string")]
    Secret(String),
    /// A secret where everybody can read it.
    #[error("tag `headwater:registry` holds a password; name hosts or a secret there")]
    PasswordInTag,
}

/// Finds the registry of a cluster.
pub(crate) async fn find(aws: &Aws, cluster: &Cluster) -> Result<SharedRegistry, SharedRegistryError> {
    let own = format!("headwater/{}/registry", cluster.name);
    let (hosts, secret, replica_set) = match place(&cluster.registry)? {
        Place::Hosts(hosts) => (hosts, own, None),
        Place::Secret(id) => (Vec::new(), id, None),
        Place::Discover => {
            let found = aws.find_registry(&cluster.name).await?;
            let hosts: Vec<_> = found.iter().map(|ip| host(*ip)).collect();
            if hosts.is_empty() {
                return Err(SharedRegistryError::Nobody(cluster.name.clone()));
            }
            (hosts, own, Some(REPLICA_SET))
        }
    };
    let text = aws.fetch_secret(&secret).await?;
    let uri = connection(&hosts, &text, replica_set).ok_or_else(|| SharedRegistryError::Secret(secret.clone()))?;
    Ok(SharedRegistry { hosts, secret, uri })
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Hosts(Vec<String>),
    Secret(String),
    Discover,
}

/// What `headwater:registry` may hold: hosts (`db1:27017,db2`, with or without `mongodb://`), or a secret by ARN or as
/// `secret:NAME`.
fn place(registry: &RegistryPlace) -> Result<Place, SharedRegistryError> {
    let RegistryPlace::Tag(value) = registry else { return Ok(Place::Discover) };
    if value.starts_with("arn:") {
        return Ok(Place::Secret(value.clone()));
    }
    if let Some(name) = value.strip_prefix("secret:") {
        return Ok(Place::Secret(name.to_owned()));
    }
    if value.contains('@') {
        return Err(SharedRegistryError::PasswordInTag);
    }
    let hosts = value.strip_prefix("mongodb://").unwrap_or(value);
    let hosts = hosts.split(['/', '?']).next().unwrap_or_default();
    Ok(Place::Hosts(hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()))
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{PORT}"),
        IpAddr::V6(ip) => format!("[{ip}]:{PORT}"),
    }
}

/// The connection string; `None` if the secret's text is of no use.
fn connection(hosts: &[String], secret: &Secret, replica_set: Option<&str>) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Login {
        username: String,
        password: String,
    }
    let text = secret.expose().trim();
    if text.starts_with("mongodb://") || text.starts_with("mongodb+srv://") {
        return Some(Secret::new(text.to_owned()));
    }
    let login: Login = serde_json::from_str(text).ok()?;
    if hosts.is_empty() {
        return None;
    }
    let (user, password) = (escape(&login.username), escape(&login.password));
    let mut uri = format!("mongodb://{user}:{password}@{}/?authSource=admin", hosts.join(","));
    if let Some(name) = replica_set {
        uri = format!("{uri}&replicaSet={name}");
    }
    Some(Secret::new(uri))
}

/// Percent-encoding of everything but RFC 3986 §2.3's unreserved characters.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

const PORT: u16 = 27_017;
/// The replica set that registry nodes form.
const REPLICA_SET: &str = "headwater";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_tag_names_hosts_or_a_secret() {
        let check = |tag: &str, expected: Place| {
            assert_eq!(place(&RegistryPlace::Tag(tag.to_owned())).unwrap(), expected, "{tag}");
        };
        let hosts = |list: &[&str]| Place::Hosts(list.iter().map(|h| (*h).to_owned()).collect());
        check("db", hosts(&["db"]));
        check("mongodb://a:1,b:2/x?y=z", hosts(&["a:1", "b:2"]));
        check("a:1, b:2", hosts(&["a:1", "b:2"]));
        check("secret:team/db", Place::Secret("team/db".to_owned()));
        let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:x";
        check(arn, Place::Secret(arn.to_owned()));
        assert_eq!(place(&RegistryPlace::Discover).unwrap(), Place::Discover);
    }

    #[test]
    fn a_password_in_a_tag_is_refused_and_not_repeated() {
        let error = place(&RegistryPlace::Tag("mongodb://u:hunter2@db".to_owned())).unwrap_err();
        assert!(
            matches!(error, SharedRegistryError::PasswordInTag) && !format!("{error:?} {error}").contains("hunter2")
        );
    }

    #[test]
    fn a_login_becomes_one_connection_string_whatever_its_characters() {
        let hosts = ["10.0.1.5:27017".to_owned(), "10.0.2.5:27017".to_owned()];
        let login = Secret::new(r#"{"username": "head:water", "password": "a/b@ü%"}"#.to_owned());
        let uri = connection(&hosts, &login, Some("headwater")).unwrap();
        let expected = "mongodb://head%3Awater:a%2Fb%40%C3%BC%25@10.0.1.5:27017,10.0.2.5:27017/\
                        ?authSource=admin&replicaSet=headwater";
        assert_eq!(uri.expose(), expected);
        assert!(!format!("{uri:?}").contains("water"));
        let whole = Secret::new("mongodb+srv://u:p@cluster.example/\n".to_owned());
        assert_eq!(connection(&[], &whole, None).unwrap().expose(), "mongodb+srv://u:p@cluster.example/");
        for useless in ["", "hunter2", "{}", r#"{"username": "a"}"#] {
            assert_eq!(connection(&hosts, &Secret::new(useless.to_owned()), None), None, "{useless}");
        }
        assert_eq!(connection(&[], &login, None), None);
    }
}
