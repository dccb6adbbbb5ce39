//! The registry of the test cluster: a single database behind a proxy, or registry nodes whose
//! mongods form a replica set. Gives checks and commands one interface to both.

mod database;
mod replica_set;

use std::net::Ipv4Addr;

use clap::ValueEnum;
use headwater_tests::delay_proxy::DelayProxy;
use headwater_tests::tools;

use crate::node::Node;
pub(crate) use database::Database;
pub(crate) use replica_set::{Mongod, ReplicaSet, ReplicaSetContext};

/// Kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RegistryKind {
    /// A single database, with its connection string in a secret.
    Database,
    /// Three registry nodes that run the mongod of HEADWATER_TEST_MONGOD, or else a stand-in that
    /// does not replicate.
    Nodes,
}

impl RegistryKind {
    /// Registry nodes if a real mongod is installed, else a single database.
    pub(crate) fn default_for_host() -> Self {
        if tools::real_mongod_path().is_some() { Self::Nodes } else { Self::Database }
    }
}

/// A registry, running or killed. Dropping it removes it with its hosts.
pub(crate) enum Registry {
    Database(Database),
    ReplicaSet(ReplicaSet),
}

impl Registry {
    /// Kills all of it at once, like a power failure.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.kill(),
            Self::ReplicaSet(set) => {
                set.kill_all();
                Ok(())
            }
        }
    }

    /// Starts it again with the same data, and waits until it accepts writes.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.restart(),
            Self::ReplicaSet(set) => {
                set.start_all()?;
                set.wait_primary().map(drop)
            }
        }
    }

    /// Addresses of the database hosts.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        match self {
            Self::Database(database) => vec![database.host().address()],
            Self::ReplicaSet(set) => set.members().iter().map(|member| member.host().address()).collect(),
        }
    }

    /// The proxy in front of a single database.
    pub(crate) fn proxy(&self) -> Option<&DelayProxy> {
        match self {
            Self::Database(database) => Some(database.proxy()),
            Self::ReplicaSet(_) => None,
        }
    }

    /// The replica set, if there is one.
    pub(crate) fn replica_set(&self) -> Option<&ReplicaSet> {
        match self {
            Self::Database(_) => None,
            Self::ReplicaSet(set) => Some(set),
        }
    }

    /// The replica set for killing and starting its members, if there is one.
    pub(crate) fn replica_set_mut(&mut self) -> Option<&mut ReplicaSet> {
        match self {
            Self::Database(_) => None,
            Self::ReplicaSet(set) => Some(set),
        }
    }

    /// The registry nodes; empty for a single database.
    pub(crate) fn members(&self) -> &[Node] {
        self.replica_set().map_or(&[], ReplicaSet::members)
    }

    /// The password that must not appear in any log.
    pub(crate) fn secret(&self) -> &str {
        match self {
            Self::Database(_) => database::PASSWORD_IN_URI,
            Self::ReplicaSet(set) => set.password(),
        }
    }
}
