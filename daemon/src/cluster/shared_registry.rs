//! Finds the MongoDB of a cluster: makes a connection string from the plan, the tags of the
//! registry nodes and a secret.
//!
//! The secret `headwater/CLUSTER/registry` holds `{"username": …, "password": …}`, or a whole
//! connection string.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use headwater_api::secret::Secret;
use headwater_registry::{MongoDb, RegistryError, Timing};
use serde::{Deserialize, Serialize};

use crate::aws::client::{Aws, AwsError};
use crate::boot::plan::{Cluster, RegistryLocation};

/// A registry that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SharedRegistry {
    /// `host:port` of each node; empty if only the secret names them.
    pub hosts: Vec<String>,
    /// Name of the secret that holds the password.
    pub secret: String,
    /// Connection string for the driver.
    #[serde(skip)]
    pub uri: Secret,
}

/// Why the registry could not be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedRegistryError {
    /// A request to AWS failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// No instance runs the registry.
    #[error("no running instance has the tags of a registry node of cluster {0:?}")]
    NoInstances(String),
    /// The secret has no known format. Its text is not shown.
    #[error("secret {0} holds neither a user name and password in JSON nor a connection string")]
    InvalidSecret(String),
    /// A cluster whose nodes run the registry needs user name and password separately. The text is
    /// not shown.
    #[error("secret {0} must hold {{\"username\": …, \"password\": …}}, since nodes of this cluster run the registry")]
    NoLogin(String),
    /// The secret names the user that registry nodes reserve for themselves.
    #[error(
        "secret {0} names the user {RECONCILER_USER}, which registry nodes need for themselves; choose another name"
    )]
    ReservedUser(String),
    /// The connection string is invalid. It is not shown.
    #[error("secret {secret} is unusable")]
    InvalidConnectionString {
        /// Name of the secret.
        secret: String,
        /// The cause of the failure.
        source: RegistryError,
    },
    /// The tag holds a password, which everybody can read there.
    #[error("tag `headwater:registry` holds a password; name hosts or a secret there")]
    PasswordInTag,
    /// The tag holds more than hosts. It is not shown: options may be secrets.
    #[error(
        "tag `headwater:registry` holds {0}, but only hosts (HOST:PORT,HOST:PORT) can be named there; put the whole connection string \
         into a secret, and secret:NAME or its ARN into the tag"
    )]
    NotHosts(&'static str),
    /// The tag holds an invalid host.
    #[error(
        "tag `headwater:registry` names the host {0:?}, which is invalid; hosts are HOST or HOST:PORT, separated by commas"
    )]
    InvalidHost(String),
}

/// Finds the registry of a cluster.
pub(crate) async fn find(aws: &Aws, cluster: &Cluster) -> Result<SharedRegistry, SharedRegistryError> {
    let default_secret = secret_name(cluster);
    let (hosts, secret, replica_set) = match parse_location(&cluster.registry)? {
        RegistrySource::Hosts(hosts) => (hosts, default_secret, None),
        RegistrySource::Secret(id) => (Vec::new(), id, None),
        RegistrySource::Discover => {
            let mut found = aws.fetch_registry_instances(&cluster.name).await?;
            found.retain(|instance| instance.running);
            found.sort_unstable_by_key(|instance| instance.address);
            let hosts: Vec<_> = found.iter().map(|instance| host_port(instance.address, cluster.port)).collect();
            if hosts.is_empty() {
                return Err(SharedRegistryError::NoInstances(cluster.name.clone()));
            }
            (hosts, default_secret, Some(cluster.replica_set()))
        }
    };
    let text = aws.fetch_secret(&secret).await?;
    let uri = connection_string(&hosts, &text, replica_set.as_deref())
        .ok_or_else(|| SharedRegistryError::InvalidSecret(secret.clone()))?;
    validate_uri(&secret, &uri).await?;
    Ok(SharedRegistry { hosts, secret, uri })
}

/// Rejects an invalid connection string before it is stored, so that it can be corrected in AWS.
/// Does not connect.
async fn validate_uri(secret: &str, uri: &Secret) -> Result<(), SharedRegistryError> {
    let opened = MongoDb::open(uri, Timing::default()).await;
    opened
        .map(drop)
        .map_err(|source| SharedRegistryError::InvalidConnectionString { secret: secret.to_owned(), source })
}

/// Fetches the login of the cluster's nodes, which a registry node needs as user name and password.
pub(crate) async fn fetch_login(aws: &Aws, cluster: &Cluster) -> Result<Login, SharedRegistryError> {
    let name = secret_name(cluster);
    let text = aws.fetch_secret(&name).await?;
    parse_login(name, &text)
}

fn parse_login(secret: String, text: &Secret) -> Result<Login, SharedRegistryError> {
    match serde_json::from_str::<Login>(text.reveal()) {
        Err(_) => Err(SharedRegistryError::NoLogin(secret)),
        Ok(login) if login.username == RECONCILER_USER => Err(SharedRegistryError::ReservedUser(secret)),
        Ok(login) => Ok(login),
    }
}

/// User name and password, as the secret holds them.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Login {
    /// User name.
    pub username: String,
    password: Secret,
}

impl Login {
    /// The password.
    pub(crate) fn password(&self) -> &Secret {
        &self.password
    }

    /// Returns the connection string for the replica set with these members.
    pub(crate) fn uri(&self, hosts: &[String], replica_set: Option<&str>) -> Secret {
        let (user, password) = (percent_encode(&self.username), percent_encode(self.password.reveal()));
        let mut uri = format!("mongodb://{user}:{password}@{}/?authSource=admin", hosts.join(","));
        if let Some(name) = replica_set {
            uri = format!("{uri}&replicaSet={name}");
        }
        Secret::new(uri)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Name of the user that manages the replica set: registry nodes reserve it for themselves.
pub(crate) const RECONCILER_USER: &str = "headwater-keeper";

/// Name of the secret that holds the registry's login, by convention.
fn secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/registry", cluster.name)
}

#[derive(Debug, PartialEq, Eq)]
enum RegistrySource {
    Hosts(Vec<String>),
    Secret(String),
    Discover,
}

/// Parses the value of `headwater:registry`: hosts (`db1:27017,db2`, with or without `mongodb://`),
/// or a secret by ARN or as `secret:NAME`. Everything else in a connection string belongs in a
/// secret: a tag is short, and everybody can read it.
fn parse_location(registry: &RegistryLocation) -> Result<RegistrySource, SharedRegistryError> {
    let RegistryLocation::Tag(value) = registry else { return Ok(RegistrySource::Discover) };
    if value.starts_with("arn:") {
        return Ok(RegistrySource::Secret(value.clone()));
    }
    if let Some(name) = value.strip_prefix("secret:") {
        return Ok(RegistrySource::Secret(name.to_owned()));
    }
    if value.contains('@') {
        return Err(SharedRegistryError::PasswordInTag);
    }
    if value.starts_with("mongodb+srv:") {
        return Err(SharedRegistryError::NotHosts("an SRV name (mongodb+srv)"));
    }
    let list = value.strip_prefix("mongodb://").unwrap_or(value);
    let list = list.strip_suffix('/').unwrap_or(list);
    if list.contains("://") {
        return Err(SharedRegistryError::NotHosts("an address that is not a MongoDB address"));
    }
    if list.contains(['/', '?']) {
        return Err(SharedRegistryError::NotHosts("a database or options after the hosts"));
    }
    let hosts = list.split(',').map(|host| host.trim().to_owned());
    let hosts: Vec<_> = hosts
        .map(|host| if is_host(&host) { Ok(host) } else { Err(SharedRegistryError::InvalidHost(host)) })
        .collect::<Result<_, _>>()?;
    Ok(RegistrySource::Hosts(hosts))
}

/// `HOST` or `HOST:PORT`; IPv6 addresses in brackets.
fn is_host(text: &str) -> bool {
    let name = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(1..) => name,
            _ => return false,
        },
        _ => text,
    };
    match name.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    }
}

/// `host:port`, as replica set members and connection strings name it.
pub(crate) fn host_port(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// Returns the connection string; `None` if the secret's text is unusable.
fn connection_string(hosts: &[String], secret: &Secret, replica_set: Option<&str>) -> Option<Secret> {
    let text = secret.reveal().trim();
    if text.starts_with("mongodb://") || text.starts_with("mongodb+srv://") {
        return Some(Secret::new(text.to_owned()));
    }
    let login: Login = serde_json::from_str(text).ok()?;
    if hosts.is_empty() {
        return None;
    }
    Some(login.uri(hosts, replica_set))
}

/// Percent-encoding of everything but RFC 3986 §2.3's unreserved characters.
pub(crate) fn percent_encode(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_tag_names_hosts_or_a_secret() {
        let check = |tag: &str, expected: RegistrySource| {
            assert_eq!(parse_location(&RegistryLocation::Tag(tag.to_owned())).unwrap(), expected, "{tag}");
        };
        let hosts = |list: &[&str]| RegistrySource::Hosts(list.iter().map(|h| (*h).to_owned()).collect());
        check("db", hosts(&["db"]));
        check("mongodb://a:1,b:2/", hosts(&["a:1", "b:2"]));
        check("[2001:db8::1]:27017,10.0.1.5", hosts(&["[2001:db8::1]:27017", "10.0.1.5"]));
        check("a:1, b:2", hosts(&["a:1", "b:2"]));
        check("secret:team/db", RegistrySource::Secret("team/db".to_owned()));
        let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:x";
        check(arn, RegistrySource::Secret(arn.to_owned()));
        assert_eq!(parse_location(&RegistryLocation::Discover).unwrap(), RegistrySource::Discover);
    }

    #[test]
    fn unsupported_registry_tag_is_rejected_with_the_reason() {
        let refused = |tag: &str| parse_location(&RegistryLocation::Tag(tag.to_owned())).unwrap_err().to_string();
        for (tag, words) in [
            ("mongodb://a,b/?tls=true&replicaSet=x", "a database or options after the hosts"),
            ("mongodb://a:1/live", "a database or options after the hosts"),
            ("a:1?tls=true", "a database or options after the hosts"),
            ("mongodb+srv://db.example", "an SRV name (mongodb+srv)"),
            ("https://db.example", "an address that is not a MongoDB address"),
            ("a:1,,b", "the host \"\""),
            ("mongodb:", "the host \"mongodb:\""),
            ("a b", "the host \"a b\""),
            ("a:0", "the host \"a:0\""),
            ("2001:db8::1:27017", "the host \"2001:db8::1:27017\""),
            ("", "the host \"\""),
        ] {
            assert!(refused(tag).contains(words), "{tag}: {}", refused(tag));
        }
        assert!(!refused("db?tlsCertificateKeyFilePassword=hunter2").contains("hunter2"));
        assert!(refused("mongodb+srv://db.example").contains("secret:NAME"));
    }

    #[tokio::test]
    async fn invalid_connection_string_is_rejected_without_showing_its_password() {
        for bad in ["mongodb://u:hunter2@", "mongodb://u:hunter2@db:port", "mongodb://u:hunter2@db/?tls=perhaps"] {
            let error = validate_uri("team/db", &Secret::new(bad.to_owned())).await.unwrap_err();
            let message = headwater_api::error::Chain(&error).to_string();
            assert!(
                message.contains("secret team/db is unusable: the MongoDB connection string is invalid"),
                "{message}"
            );
            assert!(!message.contains("hunter2"), "{message}");
        }
        validate_uri("team/db", &Secret::new("mongodb://u:hunter2@db/?replicaSet=x".to_owned())).await.unwrap();
    }

    #[test]
    fn password_in_a_tag_is_rejected_and_not_repeated() {
        let error = parse_location(&RegistryLocation::Tag("mongodb://u:hunter2@db".to_owned())).unwrap_err();
        assert!(
            matches!(error, SharedRegistryError::PasswordInTag) && !format!("{error:?} {error}").contains("hunter2")
        );
    }

    #[test]
    fn login_has_user_and_password_and_not_the_reserved_user() {
        let of = |text: &str| parse_login("s".to_owned(), &Secret::new(text.to_owned()));
        assert_eq!(of(r#"{"username": "nodes", "password": "x"}"#).unwrap().username, "nodes");
        assert!(matches!(of("mongodb://u:hunter2@db"), Err(SharedRegistryError::NoLogin(_))));
        let taken = of(r#"{"username": "headwater-keeper", "password": "hunter2"}"#).unwrap_err();
        assert!(
            matches!(taken, SharedRegistryError::ReservedUser(_)) && !taken.to_string().contains("hunter2"),
            "{taken}"
        );
    }

    #[test]
    fn login_with_any_characters_becomes_a_connection_string() {
        let hosts = ["10.0.1.5:27017".to_owned(), "10.0.2.5:27017".to_owned()];
        let login = Secret::new(r#"{"username": "head:water", "password": "a/b@ü%"}"#.to_owned());
        let uri = connection_string(&hosts, &login, Some("headwater")).unwrap();
        let expected = "mongodb://head%3Awater:a%2Fb%40%C3%BC%25@10.0.1.5:27017,10.0.2.5:27017/\
                        ?authSource=admin&replicaSet=headwater";
        assert_eq!(uri.reveal(), expected);
        assert!(!format!("{uri:?}").contains("water"));
        let whole = Secret::new("mongodb+srv://u:p@cluster.example/\n".to_owned());
        assert_eq!(connection_string(&[], &whole, None).unwrap().reveal(), "mongodb+srv://u:p@cluster.example/");
        for useless in ["", "hunter2", "{}", r#"{"username": "a"}"#] {
            assert_eq!(connection_string(&hosts, &Secret::new(useless.to_owned()), None), None, "{useless}");
        }
        assert_eq!(connection_string(&[], &login, None), None);
    }
}
