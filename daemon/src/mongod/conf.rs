//! How the database of a registry node is set up: where its files are, where it listens, and its configuration file.
//!
//! It asks everybody for a password, always, and listens at loopback and inside the VPC alone. Only settings that MongoDB 5 to
//! 8 all know: the journal is not among them, since a member of a replica set has one anyway, and from 6.1 on nobody may say so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    data_dir: PathBuf,
    listen: SocketAddr,
    replica_set: String,
}

impl Layout {
    /// Files in `data_dir`; other nodes reach it at `listen`.
    pub(crate) fn new(data_dir: &Path, listen: SocketAddr, replica_set: String) -> Self {
        Self { data_dir: data_dir.to_owned(), listen, replica_set }
    }

    /// The database's own folder.
    pub(crate) fn database(&self) -> PathBuf {
        self.data_dir.join("mongodb")
    }

    /// The folder of everything else.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.data_dir.join(CONF_NAME)
    }

    /// `host:port`, as the replica set names this member.
    pub(crate) fn host(&self) -> String {
        self.listen.to_string()
    }

    /// Its set's name.
    pub(crate) fn replica_set(&self) -> &str {
        &self.replica_set
    }

    /// Where this machine reaches it.
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.loopback().unwrap_or(self.listen.ip()), self.listen.port())
    }

    /// None of its own where the address for the others is one already.
    fn loopback(&self) -> Option<IpAddr> {
        (!self.listen.ip().is_loopback()).then_some(Ipv4Addr::LOCALHOST.into())
    }

    /// The configuration file's text.
    pub(crate) fn text(&self) -> String {
        let addresses: Vec<_> =
            self.loopback().into_iter().chain([self.listen.ip()]).map(|ip| ip.to_string()).collect();
        format!(
            "# Written by headwaterd at every start: what is changed here is lost.\n\
             storage:\n  dbPath: {}\n\
             net:\n  bindIp: {}\n  port: {}\n  unixDomainSocket:\n    enabled: false\n\
             security:\n  authorization: enabled\n  keyFile: {}\n\
             replication:\n  replSetName: {}\n",
            quoted(&self.database().to_string_lossy()),
            quoted(&addresses.join(",")),
            self.listen.port(),
            quoted(&self.data_dir.join(KEY_NAME).to_string_lossy()),
            quoted(&self.replica_set),
        )
    }
}

/// A text of YAML, whatever its characters: JSON's are a part of YAML 1.2 (§1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Inside the data folder.
pub(super) const CONF_NAME: &str = "mongod.conf";
/// What the members of the set know each other by.
pub(super) const KEY_NAME: &str = "mongod.key";

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(folder: &str, listen: &str) -> Layout {
        Layout::new(Path::new(folder), listen.parse().unwrap(), "headwater-demo".to_owned())
    }

    #[test]
    fn the_database_asks_for_passwords_and_listens_inside_only() {
        let layout = layout("/var/lib/head\"water", "10.0.1.5:27017");
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
        assert_eq!(layout.text(), expected);
        assert_eq!(
            (layout.local().to_string().as_str(), layout.host().as_str()),
            ("127.0.0.1:27017", "10.0.1.5:27017")
        );
    }

    #[test]
    fn an_address_that_is_loopback_is_the_only_one() {
        let layout = layout("/d", "127.0.0.3:5");
        assert!(layout.text().contains("bindIp: \"127.0.0.3\"\n"), "{}", layout.text());
        assert_eq!(layout.local().to_string(), "127.0.0.3:5");
    }
}
