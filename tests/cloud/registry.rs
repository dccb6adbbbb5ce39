//! The registry of the cloud: one database behind a line, or registry nodes whose mongods are a replica set. This is what
//! checks and commands need of either.

mod database;
mod set;

use std::net::Ipv4Addr;

use clap::ValueEnum;
use headwater_tests::delay::Delay;
use headwater_tests::tools;

use crate::node::Node;
pub(crate) use database::Database;
pub(crate) use set::{Mongod, Place, Set};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// One database, with a connection string in a secret.
    Database,
    /// Three registry nodes: of HEADWATER_TEST_MONGOD, or else of a stand-in that replicates nothing.
    Nodes,
}

impl Kind {
    /// A set where a real mongod is found.
    pub(crate) fn here() -> Self {
        if tools::real_mongod().is_some() { Self::Nodes } else { Self::Database }
    }
}

/// It runs, or is dead for now. Dropped = gone, with its hosts.
pub(crate) enum Registry {
    Database(Database),
    Set(Set),
}

impl Registry {
    /// All of it at once, as a power cut would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.kill(),
            Self::Set(set) => {
                set.kill_all();
                Ok(())
            }
        }
    }

    /// All of it again, with the same data; waits until it takes writes.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Database(database) => database.restart(),
            Self::Set(set) => {
                set.start_all()?;
                set.wait_primary().map(drop)
            }
        }
    }

    /// Where the other nodes reach it.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        match self {
            Self::Database(database) => vec![database.host().address()],
            Self::Set(set) => set.members().iter().map(|member| member.host().address()).collect(),
        }
    }

    /// The line to it, if it is one database.
    pub(crate) fn line(&self) -> Option<&Delay> {
        match self {
            Self::Database(database) => Some(database.line()),
            Self::Set(_) => None,
        }
    }

    /// The replica set, if it is one.
    pub(crate) fn set(&self) -> Option<&Set> {
        match self {
            Self::Database(_) => None,
            Self::Set(set) => Some(set),
        }
    }

    /// The same, to kill and start its members.
    pub(crate) fn set_mut(&mut self) -> Option<&mut Set> {
        match self {
            Self::Database(_) => None,
            Self::Set(set) => Some(set),
        }
    }

    /// The registry nodes; none if it is one database.
    pub(crate) fn members(&self) -> &[Node] {
        self.set().map_or(&[], Set::members)
    }

    /// What no log may hold.
    pub(crate) fn secret(&self) -> &str {
        match self {
            Self::Database(_) => database::SECRET,
            Self::Set(set) => set.password(),
        }
    }
}
