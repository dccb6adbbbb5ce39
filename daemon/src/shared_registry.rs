//! Where the MongoDB of a cluster is and how to log in: from the plan, the tags of its nodes and a secret, to one
//! connection string.
//!
//! The secret `headwater/CLUSTER/registry` holds `{"username": …, "password": …}`, or a whole connection string.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use headwater_registry::{MongoDb, RegistryError, Timing};
use serde::{Deserialize, Serialize};

use crate::aws::{Aws, AwsError, Secret};
use crate::mongod::KEEPER;
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
    /// The secret of a cluster whose nodes run the registry must be in parts; it is not shown.
    #[error("secret {0} must hold {{\"username\": …, \"password\": …}}, since nodes of this cluster run the registry")]
    NoLogin(String),
    /// A secret that would take its password from the one who keeps the replica set.
    #[error("secret {0} names the user {KEEPER}, which registry nodes need for themselves; choose another name")]
    Keeper(String),
    /// A connection string that no database can be reached by; it is not shown.
    #[error("secret {secret} is of no use")]
    Useless {
        /// The secret.
        secret: String,
        /// The cause.
        source: RegistryError,
    },
    /// A secret where everybody can read it.
    #[error("tag `headwater:registry` holds a password; name hosts or a secret there")]
    PasswordInTag,
    /// More than hosts. It is not shown: options may be secrets.
    #[error(
        "tag `headwater:registry` holds {0}, but only hosts (HOST:PORT,HOST:PORT) can be named there; put the whole connection string \
         into a secret, and secret:NAME or its ARN into the tag"
    )]
    NotHosts(&'static str),
    /// Something that is no host.
    #[error(
        "tag `headwater:registry` names the host {0:?}, which is none; hosts are HOST or HOST:PORT, with commas between them"
    )]
    Host(String),
}

/// Finds the registry of a cluster.
pub(crate) async fn find(aws: &Aws, cluster: &Cluster) -> Result<SharedRegistry, SharedRegistryError> {
    let own = secret_name(cluster);
    let (hosts, secret, replica_set) = match place(&cluster.registry)? {
        Place::Hosts(hosts) => (hosts, own, None),
        Place::Secret(id) => (Vec::new(), id, None),
        Place::Discover => {
            let mut found = aws.find_registry(&cluster.name).await?;
            found.retain(|instance| instance.running);
            found.sort_unstable_by_key(|instance| instance.address);
            let hosts: Vec<_> = found.iter().map(|instance| host(instance.address, cluster.port)).collect();
            if hosts.is_empty() {
                return Err(SharedRegistryError::Nobody(cluster.name.clone()));
            }
            (hosts, own, Some(cluster.replica_set()))
        }
    };
    let text = aws.fetch_secret(&secret).await?;
    let uri =
        connection(&hosts, &text, replica_set.as_deref()).ok_or_else(|| SharedRegistryError::Secret(secret.clone()))?;
    check(&secret, &uri).await?;
    Ok(SharedRegistry { hosts, secret, uri })
}

/// Refuses a connection string that is none before anybody keeps it: it can be put right in AWS. Connects to nobody.
async fn check(secret: &str, uri: &Secret) -> Result<(), SharedRegistryError> {
    let opened = MongoDb::open(&headwater_api::secret::Secret::new(uri.expose()), Timing::default()).await;
    opened.map(drop).map_err(|source| SharedRegistryError::Useless { secret: secret.to_owned(), source })
}

/// What all nodes of a cluster log in with, as a registry node must know it in parts.
pub(crate) async fn fetch_login(aws: &Aws, cluster: &Cluster) -> Result<Login, SharedRegistryError> {
    let name = secret_name(cluster);
    let text = aws.fetch_secret(&name).await?;
    login(name, &text)
}

fn login(secret: String, text: &Secret) -> Result<Login, SharedRegistryError> {
    match serde_json::from_str::<Login>(text.expose()) {
        Err(_) => Err(SharedRegistryError::NoLogin(secret)),
        Ok(login) if login.username == KEEPER => Err(SharedRegistryError::Keeper(secret)),
        Ok(login) => Ok(login),
    }
}

/// User and password, as the secret holds them.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Login {
    /// Who.
    pub username: String,
    /// And with what.
    password: String,
}

impl Login {
    /// The password.
    pub(crate) fn password(&self) -> Secret {
        Secret::new(self.password.clone())
    }

    /// The connection string to the replica set with these members.
    pub(crate) fn uri(&self, hosts: &[String], replica_set: Option<&str>) -> Secret {
        let (user, password) = (escape(&self.username), escape(&self.password));
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

/// By convention.
fn secret_name(cluster: &Cluster) -> String {
    format!("headwater/{}/registry", cluster.name)
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Hosts(Vec<String>),
    Secret(String),
    Discover,
}

/// What `headwater:registry` may hold: hosts (`db1:27017,db2`, with or without `mongodb://`), or a secret by ARN or as
/// `secret:NAME`. All else of a connection string belongs into a secret: a tag is short, and everybody can read it.
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
    if value.starts_with("mongodb+srv:") {
        return Err(SharedRegistryError::NotHosts("a name that DNS resolves (mongodb+srv)"));
    }
    let list = value.strip_prefix("mongodb://").unwrap_or(value);
    let list = list.strip_suffix('/').unwrap_or(list);
    if list.contains("://") {
        return Err(SharedRegistryError::NotHosts("an address that is not MongoDB's"));
    }
    if list.contains(['/', '?']) {
        return Err(SharedRegistryError::NotHosts("a database or options after the hosts"));
    }
    let hosts = list.split(',').map(|host| host.trim().to_owned());
    let hosts: Vec<_> = hosts
        .map(|host| if is_host(&host) { Ok(host) } else { Err(SharedRegistryError::Host(host)) })
        .collect::<Result<_, _>>()?;
    Ok(Place::Hosts(hosts))
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

/// As members of the replica set and connection strings name it.
pub(crate) fn host(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// The connection string; `None` if the secret's text is of no use.
fn connection(hosts: &[String], secret: &Secret, replica_set: Option<&str>) -> Option<Secret> {
    let text = secret.expose().trim();
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
        check("mongodb://a:1,b:2/", hosts(&["a:1", "b:2"]));
        check("[2001:db8::1]:27017,10.0.1.5", hosts(&["[2001:db8::1]:27017", "10.0.1.5"]));
        check("a:1, b:2", hosts(&["a:1", "b:2"]));
        check("secret:team/db", Place::Secret("team/db".to_owned()));
        let arn = "arn:aws:secretsmanager:eu-central-1:1:secret:x";
        check(arn, Place::Secret(arn.to_owned()));
        assert_eq!(place(&RegistryPlace::Discover).unwrap(), Place::Discover);
    }

    #[test]
    fn what_the_registry_tag_cannot_hold_is_refused_in_words_and_nothing_of_it_is_dropped() {
        let refused = |tag: &str| place(&RegistryPlace::Tag(tag.to_owned())).unwrap_err().to_string();
        for (tag, words) in [
            ("mongodb://a,b/?tls=true&replicaSet=x", "a database or options after the hosts"),
            ("mongodb://a:1/live", "a database or options after the hosts"),
            ("a:1?tls=true", "a database or options after the hosts"),
            ("mongodb+srv://db.example", "a name that DNS resolves (mongodb+srv)"),
            ("https://db.example", "an address that is not MongoDB's"),
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
    async fn a_connection_string_that_is_none_is_refused_with_its_secret_s_name_and_without_its_password() {
        for bad in ["mongodb://u:hunter2@", "mongodb://u:hunter2@db:port", "mongodb://u:hunter2@db/?tls=perhaps"] {
            let error = check("team/db", &Secret::new(bad.to_owned())).await.unwrap_err();
            let said = headwater_api::error::Chain(&error).to_string();
            assert!(said.contains("secret team/db is of no use: the MongoDB connection string is no good"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        check("team/db", &Secret::new("mongodb://u:hunter2@db/?replicaSet=x".to_owned())).await.unwrap();
    }

    #[test]
    fn a_password_in_a_tag_is_refused_and_not_repeated() {
        let error = place(&RegistryPlace::Tag("mongodb://u:hunter2@db".to_owned())).unwrap_err();
        assert!(
            matches!(error, SharedRegistryError::PasswordInTag) && !format!("{error:?} {error}").contains("hunter2")
        );
    }

    #[test]
    fn the_login_of_all_nodes_is_in_parts_and_not_that_of_the_keeper() {
        let of = |text: &str| login("s".to_owned(), &Secret::new(text.to_owned()));
        assert_eq!(of(r#"{"username": "nodes", "password": "x"}"#).unwrap().username, "nodes");
        assert!(matches!(of("mongodb://u:hunter2@db"), Err(SharedRegistryError::NoLogin(_))));
        let taken = of(r#"{"username": "headwater-keeper", "password": "hunter2"}"#).unwrap_err();
        assert!(matches!(taken, SharedRegistryError::Keeper(_)) && !taken.to_string().contains("hunter2"), "{taken}");
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
