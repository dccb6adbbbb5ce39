//! The configuration of a registry node's mongod: its folder, its addresses and its configuration
//! file.
//!
//! It always requires authentication and listens only on loopback and inside the VPC. It contains
//! only settings that MongoDB 5 to 8 all accept: the journal is not among them, since a replica set
//! member always has one, and 6.1 and later reject the setting.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Paths, address and replica set name of a mongod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MongodConfig {
    data_dir: PathBuf,
    listen: SocketAddr,
    replica_set: String,
}

impl MongodConfig {
    /// A configuration with files in `data_dir`; other nodes connect to `listen`.
    pub(crate) fn new(data_dir: &Path, listen: SocketAddr, replica_set: String) -> Self {
        Self { data_dir: data_dir.to_owned(), listen, replica_set }
    }

    /// Folder of the database files.
    pub(crate) fn database_dir(&self) -> PathBuf {
        self.data_dir.join("mongodb")
    }

    /// Folder of all other files.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Path of the configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.data_dir.join(CONFIG_NAME)
    }

    /// `host:port`, as the replica set names this member.
    pub(crate) fn host(&self) -> String {
        self.listen.to_string()
    }

    /// Name of the replica set.
    pub(crate) fn replica_set(&self) -> &str {
        &self.replica_set
    }

    /// Address at which this machine reaches it.
    pub(crate) fn local_address(&self) -> SocketAddr {
        SocketAddr::new(self.loopback().unwrap_or(self.listen.ip()), self.listen.port())
    }

    /// `None` if the listen address is already a loopback address.
    fn loopback(&self) -> Option<IpAddr> {
        (!self.listen.ip().is_loopback()).then_some(Ipv4Addr::LOCALHOST.into())
    }

    /// Returns the text of the configuration file.
    pub(crate) fn to_yaml(&self) -> String {
        let addresses: Vec<_> =
            self.loopback().into_iter().chain([self.listen.ip()]).map(|ip| ip.to_string()).collect();
        format!(
            "# Written by headwaterd at every start: what is changed here is lost.\n\
             storage:\n  dbPath: {}\n\
             net:\n  bindIp: {}\n  port: {}\n  unixDomainSocket:\n    enabled: false\n\
             security:\n  authorization: enabled\n  keyFile: {}\n\
             replication:\n  replSetName: {}\n",
            yaml_string(&self.database_dir().to_string_lossy()),
            yaml_string(&addresses.join(",")),
            self.listen.port(),
            yaml_string(&self.data_dir.join(KEY_NAME).to_string_lossy()),
            yaml_string(&self.replica_set),
        )
    }
}

/// Quotes a YAML string: a JSON string is valid YAML 1.2 (§1.3).
fn yaml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// File name inside the data folder.
pub(crate) const CONFIG_NAME: &str = "mongod.conf";
/// Name of the key file that authenticates the members of the set to each other.
pub(crate) const KEY_NAME: &str = "mongod.key";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &str, listen: &str) -> MongodConfig {
        MongodConfig::new(Path::new(folder), listen.parse().unwrap(), "headwater-demo".to_owned())
    }

    #[test]
    fn database_requires_authentication_and_listens_on_private_addresses() {
        let config = config("/var/lib/head\"water", "10.0.1.5:27017");
        let expected = r#"# Written by headwaterd at every start: what is changed here is lost.
storage:
  dbPath: "/var/lib/head\"water/mongodb"
net:
  bindIp: "127.0.0.1,10.0.1.5"
  port: 27017
  unixDomainSocket:
    enabled: false
security:
  authorization: enabled
  keyFile: "/var/lib/head\"water/mongod.key"
replication:
  replSetName: "headwater-demo"
"#;
        assert_eq!(config.to_yaml(), expected);
        assert_eq!(
            (config.local_address().to_string().as_str(), config.host().as_str()),
            ("127.0.0.1:27017", "10.0.1.5:27017")
        );
    }

    #[test]
    fn loopback_listen_address_is_the_only_address() {
        let config = config("/d", "127.0.0.3:5");
        assert!(config.to_yaml().contains("bindIp: \"127.0.0.3\"\n"), "{}", config.to_yaml());
        assert_eq!(config.local_address().to_string(), "127.0.0.3:5");
    }
}
