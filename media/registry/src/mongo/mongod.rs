//! One mongod, asked by itself: how it stands, and what makes a replica set of several of them and lets users in.
//!
//! Every call is bounded in time and retried by nobody here. It decides nothing: who forms a set with whom is the caller's. A
//! configuration is never forced upon a set.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_api::secret::Secret;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, Credential, ServerAddress};
use mongodb::{Client, Database};

use super::set_config::{Hello, MemberStatus, SetConfig};
use super::{connect, failure};
use crate::RegistryError;

/// Who a mongod is asked as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name; all users of ours are in the database `admin`.
    pub name: String,
    /// And its password.
    pub password: Secret,
}

/// What a user of the database may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRights {
    /// Read and write the registry's database, and nothing else: what the nodes of a cluster need.
    Use,
    /// Change the replica set and make users: what its registry nodes need.
    Keep,
}

/// One mongod. Cheap to clone; it is connected to when first used, and the last clone dropped closes its connections.
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
    /// The one at this address, and no other member of its set. Without a user it answers [`Mongod::hello`], and, to
    /// this machine as long as it has no users at all, [`Mongod::initiate`] and [`Mongod::create_first_user`].
    ///
    /// # Errors
    /// [`RegistryError::Setting`] if the user's name or password cannot be used.
    pub fn at(address: SocketAddr, user: Option<&User>) -> Result<Self, RegistryError> {
        let host = ServerAddress::Tcp { host: address.ip().to_string(), port: Some(address.port()) };
        let mut options = ClientOptions::builder()
            .hosts(vec![host])
            .app_name("headwaterd".to_owned())
            .direct_connection(true)
            .connect_timeout(PATIENCE)
            // Shorter than any call may take, so that it is the driver that gives up, and says why.
            .server_selection_timeout(PATIENCE / 2)
            .retry_reads(false)
            .retry_writes(false)
            .max_pool_size(POOL)
            .build();
        options.credential = user.map(|user| {
            let password = user.password.reveal().to_owned();
            Credential::builder().username(user.name.clone()).password(password).source(ADMIN.to_owned()).build()
        });
        let client = Client::with_options(options).map_err(|e| RegistryError::Setting {
            reason: format!("the database {address} cannot be asked with these settings"),
            source: Some(e.into()),
        })?;
        Ok(Self { admin: client.database(ADMIN), address: address.to_string() })
    }

    /// How it stands with its set.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn hello(&self) -> Result<Hello, RegistryError> {
        Ok(Hello::of(&self.run("ask how it stands", doc! { "hello": 1 }, PATIENCE).await?))
    }

    /// True if it lets this user in; false if name or password are wrong, or it ends just now: the driver tells no difference.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn lets_in(address: SocketAddr, user: &User) -> Result<bool, RegistryError> {
        // Users are looked at when a connection is made, so a new one it must be.
        match Self::at(address, Some(user))?.run("log in", doc! { "ping": 1 }, PATIENCE).await {
            Ok(_) => Ok(true),
            Err(e) if failure::is_login(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Begins a set. False if its files are of one already: then it is no member of that any more.
    ///
    /// # Errors
    /// If it does not take the configuration.
    pub async fn initiate(&self, config: &SetConfig) -> Result<bool, RegistryError> {
        let command = doc! { "replSetInitiate": config.document().clone() };
        match self.run("begin the replica set", command, CHANGE_PATIENCE).await {
            Err(e) if failure::code_of(&e) == Some(ALREADY_INITIALIZED) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// The set's configuration.
    ///
    /// # Errors
    /// If it has none, or does not tell.
    pub async fn config(&self) -> Result<SetConfig, RegistryError> {
        let attempted = "read the replica set's configuration";
        let answer = self.run(attempted, doc! { "replSetGetConfig": 1 }, PATIENCE).await?;
        SetConfig::of(&answer).ok_or_else(|| failure::unreadable(attempted, &self.address))
    }

    /// Puts the next configuration into force. Of several changes at a time MongoDB takes one.
    ///
    /// # Errors
    /// If it is not the primary, the last change is not settled, or the new one would be without a majority.
    pub async fn reconfigure(&self, config: &SetConfig) -> Result<(), RegistryError> {
        let command = doc! { "replSetReconfig": config.document().clone() };
        self.run("change the replica set", command, CHANGE_PATIENCE).await.map(drop)
    }

    /// The members as it sees them.
    ///
    /// # Errors
    /// If it is in no set, or does not tell.
    pub async fn members(&self) -> Result<Vec<MemberStatus>, RegistryError> {
        let answer = self.run("ask for the replica set's members", doc! { "replSetGetStatus": 1 }, PATIENCE).await?;
        Ok(MemberStatus::all_of(&answer))
    }

    /// Lets another member be the primary, and is none itself for a minute.
    ///
    /// # Errors
    /// If it is not the primary, or no other member can take over.
    pub async fn step_down(&self) -> Result<(), RegistryError> {
        let command = doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 };
        self.run("step down", command, CHANGE_PATIENCE).await.map(drop)
    }

    /// Makes the first user, as anybody on this machine may.
    ///
    /// # Errors
    /// If there are users already: then only they may.
    pub async fn create_first_user(&self, user: &User, rights: UserRights) -> Result<(), RegistryError> {
        self.run("make the first user", command("createUser", user, rights), CHANGE_PATIENCE).await.map(drop)
    }

    /// Makes a user, or gives one of that name this password and these rights.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn put_user(&self, user: &User, rights: UserRights) -> Result<(), RegistryError> {
        let attempted = format!("set the password of user {}", user.name);
        match self.run(&attempted, command("updateUser", user, rights), CHANGE_PATIENCE).await {
            Err(e) if failure::code_of(&e) == Some(USER_NOT_FOUND) => {
                let attempted = format!("make user {}", user.name);
                self.run(&attempted, command("createUser", user, rights), CHANGE_PATIENCE).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    async fn run(&self, attempted: &str, command: Document, patience: Duration) -> Result<Document, RegistryError> {
        // The driver's futures are tens of kilobytes; boxed, they stay out of everybody else's.
        match tokio::time::timeout(patience, Box::pin(self.admin.run_command(command).into_future())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(failure::failed(attempted, &self.address, e)),
            Err(_) => Err(failure::silent(attempted, &self.address, patience)),
        }
    }
}

/// Both commands that write a user have the same form.
fn command(name: &str, user: &User, rights: UserRights) -> Document {
    let roles = match rights {
        UserRights::Use => vec![doc! { "role": "readWrite", "db": connect::DATABASE }],
        // The first user may be given roles of `admin` only; it makes the others.
        UserRights::Keep => {
            ["clusterManager", "userAdminAnyDatabase"].map(|role| doc! { "role": role, "db": ADMIN }).to_vec()
        }
    };
    let mut command = Document::new();
    command.insert(name, &user.name);
    command.insert("pwd", user.password.reveal());
    command.insert("roles", roles);
    // A user that a fail-over could take back would be none.
    command.insert("writeConcern", doc! { "w": "majority", "wtimeout": 10_000 });
    command
}

/// Where users are.
const ADMIN: &str = "admin";
const POOL: u32 = 2;
/// For an answer from memory.
const PATIENCE: Duration = Duration::from_secs(3);
/// For what other members must agree to.
const CHANGE_PATIENCE: Duration = Duration::from_secs(15);
const USER_NOT_FOUND: i32 = 11;
const ALREADY_INITIALIZED: i32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_does_not_run_is_reported_with_the_reason() {
        // Nobody listens there: the port is bound, and let go of again.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Mongod::at(address, None).unwrap().hello().await.unwrap_err();
        let said = headwater_api::error::Chain(&refused).to_string();
        assert!(said.contains("Connection refused"), "{said}");
    }
}
