//! Reconciles the replica set: polls its own database, the other registry nodes and EC2 every few
//! seconds, and takes the one step that `membership.rs` decides. On the primary it also maintains
//! the two users.
//!
//! The managing user may change the set and create users, and nothing else; only registry nodes
//! know it, and they derive its password (`keyfile.rs`). Every node of the cluster logs in as the
//! other user, which reads and writes documents.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_registry::{
    DatabaseRights, DatabaseUser, Hello, MemberState, MemberStatus, Mongod, RegistryError, ReplicaSetConfig,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::aws::client::{Aws, AwsError};
use crate::boot::plan::Cluster;
use crate::cluster::shared_registry;
use crate::cluster::shared_registry::{Login, RECONCILER_USER};
use crate::registry_node::config::MongodConfig;
use crate::registry_node::keyfile::ClusterKeys;
use crate::registry_node::membership::{Member, MissingMembers, Peer, SetView, StablePeriod, Step, next_step};

/// The status of this node's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseStatus {
    /// Its state.
    pub state: DatabaseState,
    /// `host:port` of the running registry nodes, this one included.
    pub hosts: Vec<String>,
}

/// The state of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DatabaseState {
    /// It does not serve, for this reason.
    OutOfService(String),
    /// It serves as a member.
    Member {
        /// True if it accepts writes.
        primary: bool,
    },
}

impl DatabaseStatus {
    /// The status before the first poll.
    pub(crate) fn unknown() -> Self {
        Self { state: DatabaseState::OutOfService("mongod has not been polled yet".to_owned()), hosts: Vec::new() }
    }

    /// True if it serves.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.state, DatabaseState::Member { .. })
    }
}

/// Reconciles the replica set from one node.
#[derive(Debug)]
pub(crate) struct ReplicaSetReconciler {
    aws: Aws,
    cluster: Cluster,
    own_id: String,
    config: MongodConfig,
    user: DatabaseUser,
    login_rx: watch::Receiver<Login>,
    local: Mongod,
    /// A client that is logged in as the managing user, while this node is the primary.
    primary: Option<Mongod>,
    /// Clients of the other registry nodes, by address.
    peer_clients: HashMap<SocketAddr, Mongod>,
    listing: Option<(Instant, Vec<Peer>)>,
    missing_members: MissingMembers,
    stable_period: StablePeriod,
    /// The login whose user was ensured since this node became primary.
    ensured_login: Option<Login>,
    last_logged: String,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    /// A database operation failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry nodes could not be listed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The managing user has another password than the derived one, or does not exist.
    #[error(
        "the database has another password for {RECONCILER_USER}: its replica set was initiated with another relay \
         secret; restore that secret"
    )]
    WrongPassword(#[source] RegistryError),
}

impl ReconcileError {
    /// Maps the error of creating the first user on a database that rejects the managing user. Only
    /// a permanent refusal means that the database already has users: a full disk or a lost
    /// majority passes.
    fn from_first_user_error(error: RegistryError) -> Self {
        match error {
            RegistryError::Refused { retryable: false, .. } => Self::WrongPassword(error),
            error => Self::Registry(error),
        }
    }
}

impl ReplicaSetReconciler {
    /// A reconciler for the database that `config` describes. Sends no request yet.
    pub(crate) async fn new(
        cluster: &Cluster,
        own_id: &str,
        config: &MongodConfig,
        keys: &ClusterKeys,
        login_rx: watch::Receiver<Login>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            aws: Aws::in_region(&cluster.region).await,
            cluster: cluster.clone(),
            own_id: own_id.to_owned(),
            config: config.clone(),
            user: reconciler_user(keys),
            login_rx,
            local: Mongod::at(config.local_address(), None)?,
            primary: None,
            peer_clients: HashMap::new(),
            listing: None,
            missing_members: MissingMembers::default(),
            stable_period: StablePeriod::default(),
            ensured_login: None,
            last_logged: String::new(),
        })
    }

    /// Reconciles repeatedly, and publishes the status to `status_tx`. Never returns.
    pub(crate) async fn run(&mut self, status_tx: watch::Sender<DatabaseStatus>) {
        loop {
            let result = self.reconcile().await;
            if result.is_err() {
                self.stable_period = StablePeriod::default();
            }
            let (state, problem) =
                result.unwrap_or_else(|e| (DatabaseState::OutOfService(Chain(&e).to_string()), None));
            self.log_change(&state, problem);
            let hosts = self.listing.iter().flat_map(|(_, peers)| peers).filter(|peer| peer.running);
            let hosts = hosts.map(|peer| peer.host.clone()).collect();
            let serves = matches!(state, DatabaseState::Member { .. });
            status_tx.send_if_modified(|current| {
                let new = DatabaseStatus { state, hosts };
                let changed = *current != new;
                *current = new;
                changed
            });
            tokio::time::sleep(if serves { RECONCILE_INTERVAL } else { STARTING_INTERVAL }).await;
        }
    }

    /// Polls once and takes one step. Returns the state of the database, and what is wrong with its
    /// set even so.
    async fn reconcile(&mut self) -> Result<(DatabaseState, Option<String>), ReconcileError> {
        let own_hello = self.local.hello().await?;
        if own_hello.state != MemberState::Primary {
            // A new primary ensures the users again: what an older one wrote may be lost.
            (self.ensured_login, self.primary) = (None, None);
        }
        let state = match own_hello.state {
            MemberState::Primary => Some(DatabaseState::Member { primary: true }),
            MemberState::Secondary => Some(DatabaseState::Member { primary: false }),
            _ => None,
        };
        match (self.take_step(&own_hello).await, state) {
            (Ok(problem), Some(state)) => Ok((state, problem)),
            (Err(e), Some(state)) => Ok((state, Some(Chain(&e).to_string()))),
            (Ok(problem), None) => {
                let reason = problem
                    .unwrap_or_else(|| "mongod is a member of the replica set but does not serve yet".to_owned());
                Ok((DatabaseState::OutOfService(reason), None))
            }
            (Err(e), None) => Err(e),
        }
    }

    /// Takes the next step. Returns the reason for waiting, if any.
    async fn take_step(&mut self, own_hello: &Hello) -> Result<Option<String>, ReconcileError> {
        let primary = own_hello.state == MemberState::Primary;
        let primary = if primary { Some(self.ensure_users().await?) } else { None };
        self.refresh_listing(!matches!(own_hello.state, MemberState::Primary | MemberState::Secondary)).await?;
        let mut peers = self.listing.as_ref().map(|(_, peers)| peers.clone()).unwrap_or_default();
        self.missing_members.observe(&own_hello.hosts, &peers, Instant::now());
        if matches!(own_hello.state, MemberState::Primary | MemberState::Uninitialized) {
            self.query_peers(&mut peers, own_hello).await;
        }
        let (set, members) = match primary {
            Some(primary) => {
                let config = primary.config().await?;
                let members = self.members_of(&config, &primary.members().await?);
                (Some((primary, config)), members)
            }
            None => (None, Vec::new()),
        };
        let view = SetView { own_id: self.own_id.clone(), state: own_hello.state, peers, members };
        let step = next_step(&view);
        let is_stable = self.stable_period.observe(&step, Instant::now());
        match (step, set) {
            (Step::Idle, _) => Ok(None),
            (Step::Wait(reason), _) => Ok(Some(reason)),
            (Step::Initiate, _) if !is_stable => {
                Ok(Some("initiating a replica set in a few seconds, unless another node has one".to_owned()))
            }
            (Step::Initiate, _) => self.initiate_set(&view.peers).await.map(Some),
            (Step::Add(host), Some((primary, config))) => {
                primary.reconfigure(&config.with_member(&host)).await?;
                log::info!(peer = host.as_str(); "registry node added to the replica set");
                Ok(None)
            }
            (Step::Remove(host), Some((primary, config))) => {
                primary.reconfigure(&config.without_member(&host)).await?;
                log::info!(peer = host.as_str(); "missing registry node removed from the replica set");
                Ok(None)
            }
            (Step::Add(_) | Step::Remove(_), None) => Ok(None),
        }
    }

    /// Initiates a set, unless one of the peers has had one. Returns the reason for waiting.
    async fn initiate_set(&mut self, peers: &[Peer]) -> Result<String, ReconcileError> {
        for peer in peers {
            // A removed member reports no set, like a new one; but it has users and data.
            let Ok(address) = peer.host.parse() else { continue };
            if Mongod::accepts_login(address, &self.user).await? {
                let (id, host) = (&peer.id, &peer.host);
                return Ok(format!(
                    "the database of {id} ({host}) belongs to a replica set that has removed that node"
                ));
            }
        }
        let host = self.config.host();
        if !self.local.initiate(&ReplicaSetConfig::initial(self.config.replica_set(), &host)).await? {
            return Ok("the database belongs to a replica set that has removed this node".to_owned());
        }
        log::info!(set = self.config.replica_set(), peer = host.as_str(); "replica set initiated");
        Ok("the replica set has just been initiated".to_owned())
    }

    /// Lists the registry nodes with EC2, if the list is out of date.
    async fn refresh_listing(&mut self, is_starting: bool) -> Result<(), AwsError> {
        let now = Instant::now();
        let interval = if is_starting { STARTING_LIST_INTERVAL } else { LIST_INTERVAL };
        if self.listing.as_ref().is_some_and(|(at, _)| now - *at < interval) {
            return Ok(());
        }
        let found = self.aws.fetch_registry_instances(&self.cluster.name).await?;
        let peer = |own_id: crate::aws::client::RegistryInstance| Peer {
            host: shared_registry::host_port(own_id.address, self.cluster.port),
            id: own_id.id,
            running: own_id.running,
            hello: None,
        };
        self.listing = Some((now, found.into_iter().map(peer).collect()));
        Ok(())
    }

    /// Queries the state of all other running registry nodes concurrently.
    async fn query_peers(&mut self, peers: &mut [Peer], own_hello: &Hello) {
        let mut queries = JoinSet::new();
        let mut clients = HashMap::new();
        for (at, peer) in peers.iter_mut().enumerate().filter(|(_, peer)| peer.running) {
            if peer.id == self.own_id {
                peer.hello = Some(own_hello.clone());
                continue;
            }
            let Ok(address) = peer.host.parse::<SocketAddr>() else { continue };
            let Some(mongod) = self.peer_clients.remove(&address).or_else(|| Mongod::at(address, None).ok()) else {
                continue;
            };
            clients.insert(address, mongod.clone());
            queries.spawn(async move { (at, mongod.hello().await.ok()) });
        }
        self.peer_clients = clients;
        for (at, hello) in queries.join_all().await {
            if let Some(peer) = peers.get_mut(at) {
                peer.hello = hello;
            }
        }
    }

    fn members_of(&self, config: &ReplicaSetConfig, statuses: &[MemberStatus]) -> Vec<Member> {
        let now = Instant::now();
        let member = |(host, votes): (String, bool)| {
            let status = statuses.iter().find(|status| status.host == host);
            Member {
                votes,
                reachable: status.is_some_and(|status| status.reachable),
                serving: status.is_some_and(|status| status.serving),
                missing: self.missing_members.is_missing(&host, now),
                host,
            }
        };
        config.members().into_iter().map(member).collect()
    }

    /// Creates missing users, and sets the cluster user's password to the one in its secret.
    /// Returns a client of the primary that is logged in as the managing user.
    async fn ensure_users(&mut self) -> Result<Mongod, ReconcileError> {
        let login = self.login_rx.borrow().clone();
        if let (Some(primary), true) = (&self.primary, self.ensured_login.as_ref() == Some(&login)) {
            return Ok(primary.clone());
        }
        let local = self.config.local_address();
        if !Mongod::accepts_login(local, &self.user).await? {
            self.local
                .create_first_user(&self.user, DatabaseRights::Administer)
                .await
                .map_err(ReconcileError::from_first_user_error)?;
            log::info!(user = RECONCILER_USER; "user that manages the replica set created");
        }
        let user = DatabaseUser { name: login.username.clone(), password: login.password().clone() };
        let primary = Mongod::at(local, Some(&self.user))?;
        if !Mongod::accepts_login(local, &user).await? {
            primary.put_user(&user, DatabaseRights::ReadWrite).await?;
            log::info!(user = user.name.as_str(); "password of the registry user set from its secret");
        }
        (self.ensured_login, self.primary) = (Some(login), Some(primary.clone()));
        Ok(primary)
    }

    /// Logs each change once.
    fn log_change(&mut self, state: &DatabaseState, problem: Option<String>) {
        let (title, reason) = match (state, problem) {
            (DatabaseState::OutOfService(reason), _) => ("out of service", reason.clone()),
            (DatabaseState::Member { .. }, Some(reason)) => ("replica set", reason),
            (DatabaseState::Member { primary }, None) => {
                let state = if *primary { "primary" } else { "secondary" };
                if self.last_logged != state {
                    log::info!(state; "replica set");
                    self.last_logged = state.to_owned();
                }
                return;
            }
        };
        if reason != self.last_logged {
            log::warn!(err = reason.as_str(); "{title}");
            self.last_logged = reason;
        }
    }
}

/// Steps down before the shutdown, if this member is the primary and another one serves.
pub(crate) async fn step_down(config: &MongodConfig, keys: &ClusterKeys) {
    let stepping = async {
        let client = Mongod::at(config.local_address(), Some(&reconciler_user(keys)))?;
        if client.hello().await?.state != MemberState::Primary {
            return Ok(());
        }
        let host = config.host();
        if client.members().await?.iter().any(|member| member.serving && member.host != host) {
            client.step_down().await?;
            log::info!("another registry node takes over");
        }
        Ok::<_, RegistryError>(())
    };
    if let Err(e) = stepping.await {
        log::warn!(err:% = Chain(&e); "no other registry node takes over yet");
    }
}

fn reconciler_user(keys: &ClusterKeys) -> DatabaseUser {
    DatabaseUser { name: RECONCILER_USER.to_owned(), password: keys.reconciler_password.clone() }
}

/// Interval between two steps while the database serves, and while it does not.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
const STARTING_INTERVAL: Duration = Duration::from_millis(500);
/// Interval between two requests to EC2: while the database serves, and while it does not.
const LIST_INTERVAL: Duration = RECONCILE_INTERVAL;
const STARTING_LIST_INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_not_mistaken_for_another_secret() {
        let check = |retryable: bool, names_secret: bool| {
            let (attempted, servers) = ("create user headwater-keeper".to_owned(), "127.0.0.1:27017".to_owned());
            let source = "Error code 14031 (OutOfDiskSpace)".into();
            let refused = RegistryError::Refused { attempted, servers, retryable, source };
            let message = Chain(&ReconcileError::from_first_user_error(refused)).to_string();
            assert_eq!(message.contains("initiated with another relay secret"), names_secret, "{message}");
            assert!(message.contains("OutOfDiskSpace"), "{message}");
        };
        check(true, false);
        check(false, true);
    }
}
