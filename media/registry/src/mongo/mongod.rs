//! One mongod, addressed directly: its replica set state, and the commands that form a replica set
//! and create users.
//!
//! Every call is bounded in time, and none is retried here. Which servers form a set is the
//! caller's decision. A configuration is never forced.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, ServerAddress};
use mongodb::{Client, Database};

use super::replica_set_config::{Hello, MemberStatus, ReplicaSetConfig};
use super::{connect, failure};
use crate::RegistryError;

/// For commands that are answered from memory.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);
/// For changes that other members must acknowledge.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_POOL_SIZE: u32 = 2;

/// A user of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUser {
    /// Name, in the database `admin`.
    pub name: String,
    /// Password, for SCRAM authentication.
    pub password: Secret,
}

/// What a user of the database may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseRights {
    /// Read and write the registry's database only: for all nodes of a cluster.
    ReadWrite,
    /// Change the replica set and create users: for registry nodes.
    Administer,
}

/// One mongod. Cheap to clone. It connects when it is first used; dropping the last clone closes
/// its connections.
#[derive(Clone)]
pub struct Mongod {
    admin: Database,
    address: String,
}

impl fmt::Debug for Mongod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mongod({})", self.address)
    }
}

impl Mongod {
    /// The server at this address, and no other member of its set. Without a user only
    /// [`Mongod::hello`] is allowed and, from the server's own machine while it has no users,
    /// [`Mongod::initiate`] and [`Mongod::create_first_user`].
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if the user's name or password is unusable.
    pub fn at(address: SocketAddr, user: Option<&DatabaseUser>) -> Result<Self, RegistryError> {
        let host = ServerAddress::Tcp { host: address.ip().to_string(), port: Some(address.port()) };
        let mut options = ClientOptions::builder()
            .hosts(vec![host])
            .app_name("headwaterd".to_owned())
            .direct_connection(true)
            .connect_timeout(COMMAND_TIMEOUT)
            // Shorter than any call's timeout, so that the driver gives up first and reports the
            // reason.
            .server_selection_timeout(COMMAND_TIMEOUT / 2)
            .retry_reads(false)
            .retry_writes(false)
            .max_pool_size(MAX_POOL_SIZE)
            .build();
        options.credential = user.map(|user| {
            let password = user.password.reveal().to_owned();
            Credential::builder()
                .username(user.name.clone())
                .password(password)
                .source(ADMIN_DATABASE.to_owned())
                .build()
        });
        let client = Client::with_options(options).map_err(|e| RegistryError::Setting {
            reason: format!("the credentials for the database {address} are unusable"),
            source: Some(e.into()),
        })?;
        Ok(Self { admin: client.database(ADMIN_DATABASE), address: address.to_string() })
    }

    /// Its replica set state.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn hello(&self) -> Result<Hello, RegistryError> {
        Ok(Hello::of(&self.run("read the replica set state", doc! { "hello": 1 }, COMMAND_TIMEOUT).await?))
    }

    /// True if it accepts this user; false if name or password are wrong, or if it is shutting
    /// down: the driver does not distinguish them.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn accepts_login(address: SocketAddr, user: &DatabaseUser) -> Result<bool, RegistryError> {
        // Users are authenticated when a connection is opened, so this needs a new one.
        match Self::at(address, Some(user))?.run("log in", doc! { "ping": 1 }, COMMAND_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(e) if failure::is_authentication_failure(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Initiates a replica set. Returns false if its data belongs to a set already, of which it is
    /// no longer a member.
    ///
    /// # Errors
    /// If it rejects the configuration.
    pub async fn initiate(&self, config: &ReplicaSetConfig) -> Result<bool, RegistryError> {
        let command = doc! { "replSetInitiate": config.document().clone() };
        match self.run("initiate the replica set", command, CHANGE_TIMEOUT).await {
            Err(e) if failure::code_of(&e) == Some(ALREADY_INITIALIZED) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// The configuration of its set.
    ///
    /// # Errors
    /// If it has none, or does not answer.
    pub async fn config(&self) -> Result<ReplicaSetConfig, RegistryError> {
        let attempted = "read the replica set's configuration";
        let answer = self.run(attempted, doc! { "replSetGetConfig": 1 }, COMMAND_TIMEOUT).await?;
        ReplicaSetConfig::of(&answer).ok_or_else(|| failure::incomplete_answer(attempted, &self.address))
    }

    /// Applies the next configuration. MongoDB accepts one change at a time.
    ///
    /// # Errors
    /// If it is not the primary, the previous change is not committed, or the new configuration
    /// would have no majority.
    pub async fn reconfigure(&self, config: &ReplicaSetConfig) -> Result<(), RegistryError> {
        let command = doc! { "replSetReconfig": config.document().clone() };
        self.run("change the replica set", command, CHANGE_TIMEOUT).await.map(drop)
    }

    /// The members and their states from its point of view.
    ///
    /// # Errors
    /// If it is in no set, or does not answer.
    pub async fn members(&self) -> Result<Vec<MemberStatus>, RegistryError> {
        let answer =
            self.run("list the replica set's members", doc! { "replSetGetStatus": 1 }, COMMAND_TIMEOUT).await?;
        Ok(MemberStatus::all_of(&answer))
    }

    /// Makes it a secondary for a minute, so that another member becomes the primary.
    ///
    /// # Errors
    /// If it is not the primary, or no other member can take over.
    pub async fn step_down(&self) -> Result<(), RegistryError> {
        let command = doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 };
        self.run("step down", command, CHANGE_TIMEOUT).await.map(drop)
    }

    /// Creates the first user, without logging in (MongoDB's localhost exception).
    ///
    /// # Errors
    /// If there are users already.
    pub async fn create_first_user(&self, user: &DatabaseUser, rights: DatabaseRights) -> Result<(), RegistryError> {
        let command = user_command("createUser", user, rights);
        self.run("create the first user", command, CHANGE_TIMEOUT).await.map(drop)
    }

    /// Creates a user, or updates password and rights of one with the same name.
    ///
    /// # Errors
    /// If it refuses.
    pub async fn put_user(&self, user: &DatabaseUser, rights: DatabaseRights) -> Result<(), RegistryError> {
        let attempted = format!("set the password of user {}", user.name);
        match self.run(&attempted, user_command("updateUser", user, rights), CHANGE_TIMEOUT).await {
            Err(e) if failure::code_of(&e) == Some(USER_NOT_FOUND) => {
                let attempted = format!("create user {}", user.name);
                self.run(&attempted, user_command("createUser", user, rights), CHANGE_TIMEOUT).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    async fn run(&self, attempted: &str, command: Document, timeout: Duration) -> Result<Document, RegistryError> {
        // The driver's futures have tens of kilobytes; boxed, they do not enlarge the callers'.
        match tokio::time::timeout(timeout, Box::pin(self.admin.run_command(command).into_future())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(failure::call_failed(attempted, &self.address, e)),
            Err(_) => Err(failure::call_timed_out(attempted, &self.address, timeout)),
        }
    }
}

/// `createUser` or `updateUser`, which have the same form.
fn user_command(name: &str, user: &DatabaseUser, rights: DatabaseRights) -> Document {
    let roles = match rights {
        DatabaseRights::ReadWrite => vec![doc! { "role": "readWrite", "db": connect::DEFAULT_DATABASE }],
        // The first user may get roles of `admin` only; it creates the other users.
        DatabaseRights::Administer => {
            ["clusterManager", "userAdminAnyDatabase"].map(|role| doc! { "role": role, "db": ADMIN_DATABASE }).to_vec()
        }
    };
    let mut command = Document::new();
    command.insert(name, &user.name);
    command.insert("pwd", user.password.reveal());
    command.insert("roles", roles);
    // A failover must not roll back a user.
    command.insert("writeConcern", doc! { "w": "majority", "wtimeout": 10_000 });
    command
}

/// The database of all users.
const ADMIN_DATABASE: &str = "admin";
const USER_NOT_FOUND: i32 = 11;
const ALREADY_INITIALIZED: i32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopped_server_is_reported_with_the_reason() {
        // A port without a listener: bound, and released again.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Mongod::at(address, None).unwrap().hello().await.unwrap_err();
        let sentence = headwater_api::error::Chain(&error).to_string();
        assert!(sentence.contains("Connection refused"), "{sentence}");
    }
}
