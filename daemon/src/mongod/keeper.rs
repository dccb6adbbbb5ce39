//! Keeps the replica set: looks every few seconds at its own database, at the other registry nodes and at what EC2 says of them,
//! and takes the one step that `membership.rs` decides. On the primary it also sees to the two users.
//!
//! The keeper's user may change the set and make users, and nothing else; it is known to registry nodes alone, who derive its
//! password (`key.rs`). The other one is what every node of the cluster logs in with: it reads and writes documents.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_api::error::Chain;
use headwater_api::secret::Secret;
use headwater_registry::{Hello, MemberState, MemberStatus, Mongod, RegistryError, SetConfig, User, UserRights};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::conf::Layout;
use super::key::Keys;
use super::membership::{Absences, Calm, Member, Peer, Step, View, decide};
use crate::aws::{Aws, AwsError};
use crate::plan::Cluster;
use crate::shared_registry::{self, Login};

/// What is known of this node's database, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// How it stands.
    pub place: Place,
    /// `host:port` of the registry nodes that run, this one included.
    pub hosts: Vec<String>,
}

/// How a database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It does not serve, for this reason.
    Outside(String),
    /// It serves as a member.
    Member {
        /// It takes writes.
        primary: bool,
    },
}

impl Known {
    /// Nothing yet.
    pub(crate) fn nothing() -> Self {
        Self { place: Place::Outside("mongod was not asked yet".to_owned()), hosts: Vec::new() }
    }

    /// True if it serves.
    pub(crate) fn is_member(&self) -> bool {
        matches!(self.place, Place::Member { .. })
    }
}

/// Looks after the replica set of one node.
#[derive(Debug)]
pub(crate) struct Keeper {
    aws: Aws,
    cluster: Cluster,
    instance: String,
    layout: Layout,
    user: User,
    logins: watch::Receiver<Login>,
    local: Mongod,
    /// The same, asked as the keeper, while it is the primary.
    kept: Option<Mongod>,
    /// The other registry nodes, by where they are.
    peers: HashMap<SocketAddr, Mongod>,
    listed: Option<(Instant, Vec<Peer>)>,
    absences: Absences,
    calm: Calm,
    /// The login whose user was seen to since this node is the primary.
    seen_to: Option<Login>,
    said: String,
}

/// Why the set is not as it should be.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    /// A database does not do what it was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// EC2 does not tell who the registry nodes are.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The keeper's user has another password than this node derives, or none.
    #[error(
        "the database knows {KEEPER} by another password: its replica set was begun with another secret of the relay, \
         put that back"
    )]
    Stranger(#[source] RegistryError),
}

impl KeeperError {
    /// Why a database that does not let the keeper in does not take it as its first user either. Only what nobody but a person can change
    /// means that it has users already: a full disk or a lost majority pass.
    fn of_first_user(error: RegistryError) -> Self {
        match error {
            RegistryError::Refused { retryable: false, .. } => Self::Stranger(error),
            error => Self::Registry(error),
        }
    }
}

impl Keeper {
    /// Of the database that `layout` sets up. Asks nobody yet.
    pub(crate) async fn new(
        cluster: &Cluster,
        instance: &str,
        layout: &Layout,
        keys: &Keys,
        logins: watch::Receiver<Login>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            aws: Aws::in_region(&cluster.region).await,
            cluster: cluster.clone(),
            instance: instance.to_owned(),
            layout: layout.clone(),
            user: keeper(keys),
            logins,
            local: Mongod::at(layout.local(), None)?,
            kept: None,
            peers: HashMap::new(),
            listed: None,
            absences: Absences::default(),
            calm: Calm::default(),
            seen_to: None,
            said: String::new(),
        })
    }

    /// Looks and acts, and tells `known` what it finds. Never ends.
    pub(crate) async fn run(&mut self, known: watch::Sender<Known>) {
        loop {
            let looked = self.look().await;
            if looked.is_err() {
                self.calm = Calm::default();
            }
            let (place, trouble) = looked.unwrap_or_else(|e| (Place::Outside(Chain(&e).to_string()), None));
            self.say(&place, trouble);
            let hosts = self.listed.iter().flat_map(|(_, peers)| peers).filter(|peer| peer.running);
            let hosts = hosts.map(|peer| peer.host.clone()).collect();
            let serves = matches!(place, Place::Member { .. });
            known.send_if_modified(|known| {
                let now = Known { place, hosts };
                let changed = *known != now;
                *known = now;
                changed
            });
            tokio::time::sleep(if serves { PAUSE } else { SOON }).await;
        }
    }

    /// One look and one step. How the database stands, and what is wrong with its set all the same.
    async fn look(&mut self) -> Result<(Place, Option<String>), KeeperError> {
        let ours = self.local.hello().await?;
        if ours.state != MemberState::Primary {
            // Whoever becomes the primary sees to the users again: what an older one wrote may be lost.
            (self.seen_to, self.kept) = (None, None);
        }
        let place = match ours.state {
            MemberState::Primary => Some(Place::Member { primary: true }),
            MemberState::Secondary => Some(Place::Member { primary: false }),
            _ => None,
        };
        match (self.step(&ours).await, place) {
            (Ok(trouble), Some(place)) => Ok((place, trouble)),
            (Err(e), Some(place)) => Ok((place, Some(Chain(&e).to_string()))),
            (Ok(trouble), None) => {
                let why = trouble.unwrap_or_else(|| "mongod is a member that does not serve yet".to_owned());
                Ok((Place::Outside(why), None))
            }
            (Err(e), None) => Err(e),
        }
    }

    /// Does what is to be done now. Says what is waited for.
    async fn step(&mut self, ours: &Hello) -> Result<Option<String>, KeeperError> {
        let primary = ours.state == MemberState::Primary;
        let kept = if primary { Some(self.see_to_users().await?) } else { None };
        self.list(!matches!(ours.state, MemberState::Primary | MemberState::Secondary)).await?;
        let mut peers = self.listed.as_ref().map(|(_, peers)| peers.clone()).unwrap_or_default();
        self.absences.observe(&ours.hosts, &peers, Instant::now());
        if matches!(ours.state, MemberState::Primary | MemberState::Setless) {
            self.greet(&mut peers, ours).await;
        }
        let (set, members) = match kept {
            Some(kept) => {
                let config = kept.config().await?;
                let members = self.members(&config, &kept.members().await?);
                (Some((kept, config)), members)
            }
            None => (None, Vec::new()),
        };
        let view = View { us: self.instance.clone(), state: ours.state, peers, members };
        let step = decide(&view);
        let calm = self.calm.lasts(&step, Instant::now());
        match (step, set) {
            (Step::Rest, _) => Ok(None),
            (Step::Wait(why), _) => Ok(Some(why)),
            (Step::Initiate, _) if !calm => {
                Ok(Some("a replica set is begun in a few seconds, if nobody has one".to_owned()))
            }
            (Step::Initiate, _) => self.begin(&view.peers).await.map(Some),
            (Step::Add(host), Some((kept, config))) => {
                kept.reconfigure(&config.with(&host)).await?;
                log::info!(peer = host.as_str(); "registry node taken into the replica set");
                Ok(None)
            }
            (Step::Remove(host), Some((kept, config))) => {
                kept.reconfigure(&config.without(&host)).await?;
                log::info!(peer = host.as_str(); "registry node that is gone removed from the replica set");
                Ok(None)
            }
            (Step::Add(_) | Step::Remove(_), None) => Ok(None),
        }
    }

    /// Begins a set, unless one of these has had one. Says what is waited for.
    async fn begin(&mut self, peers: &[Peer]) -> Result<String, KeeperError> {
        for peer in peers {
            // A member that was let go of says that it has no set, as a new one does; but it has users, and data.
            let Ok(address) = peer.host.parse() else { continue };
            if Mongod::lets_in(address, &self.user).await? {
                let (id, host) = (&peer.id, &peer.host);
                return Ok(format!(
                    "the database of {id} ({host}) belongs to a replica set that has let go of that node"
                ));
            }
        }
        let host = self.layout.host();
        if !self.local.initiate(&SetConfig::first(self.layout.replica_set(), &host)).await? {
            return Ok("the database belongs to a replica set that has let go of this node".to_owned());
        }
        log::info!(set = self.layout.replica_set(), peer = host.as_str(); "replica set begun");
        Ok("the replica set has just begun".to_owned())
    }

    /// Asks EC2 who the registry nodes are, if it is time to.
    async fn list(&mut self, soon: bool) -> Result<(), AwsError> {
        let now = Instant::now();
        let pause = if soon { LIST_SOON } else { LIST };
        if self.listed.as_ref().is_some_and(|(at, _)| now - *at < pause) {
            return Ok(());
        }
        let found = self.aws.find_registry(&self.cluster.name).await?;
        let peer = |instance: crate::aws::RegistryInstance| Peer {
            host: shared_registry::host(instance.address, self.cluster.port),
            id: instance.id,
            running: instance.running,
            hello: None,
        };
        self.listed = Some((now, found.into_iter().map(peer).collect()));
        Ok(())
    }

    /// Asks all other registry nodes that run how they stand, at the same time.
    async fn greet(&mut self, peers: &mut [Peer], ours: &Hello) {
        let mut asked = JoinSet::new();
        let mut known = HashMap::new();
        for (at, peer) in peers.iter_mut().enumerate().filter(|(_, peer)| peer.running) {
            if peer.id == self.instance {
                peer.hello = Some(ours.clone());
                continue;
            }
            let Ok(address) = peer.host.parse::<SocketAddr>() else { continue };
            let Some(mongod) = self.peers.remove(&address).or_else(|| Mongod::at(address, None).ok()) else { continue };
            known.insert(address, mongod.clone());
            asked.spawn(async move { (at, mongod.hello().await.ok()) });
        }
        self.peers = known;
        for (at, hello) in asked.join_all().await {
            if let Some(peer) = peers.get_mut(at) {
                peer.hello = hello;
            }
        }
    }

    fn members(&self, config: &SetConfig, statuses: &[MemberStatus]) -> Vec<Member> {
        let now = Instant::now();
        let member = |(host, votes): (String, bool)| {
            let status = statuses.iter().find(|status| status.host == host);
            Member {
                votes,
                answers: status.is_some_and(|status| status.answers),
                serves: status.is_some_and(|status| status.serves),
                gone: self.absences.is_gone(&host, now),
                host,
            }
        };
        config.members().into_iter().map(member).collect()
    }

    /// Makes the users that are missing, and gives the cluster's the password that its secret says. The primary as its keeper.
    async fn see_to_users(&mut self) -> Result<Mongod, KeeperError> {
        let login = self.logins.borrow().clone();
        if let (Some(kept), true) = (&self.kept, self.seen_to.as_ref() == Some(&login)) {
            return Ok(kept.clone());
        }
        let local = self.layout.local();
        if !Mongod::lets_in(local, &self.user).await? {
            self.local.create_first_user(&self.user, UserRights::Keep).await.map_err(KeeperError::of_first_user)?;
            log::info!(user = KEEPER; "user that keeps the replica set made");
        }
        let user = User { name: login.username.clone(), password: Secret::new(login.password().expose()) };
        let kept = Mongod::at(local, Some(&self.user))?;
        if !Mongod::lets_in(local, &user).await? {
            kept.put_user(&user, UserRights::Use).await?;
            log::info!(user = user.name.as_str(); "user of the registry has the password of its secret");
        }
        (self.seen_to, self.kept) = (Some(login), Some(kept.clone()));
        Ok(kept)
    }

    /// Says each change once.
    fn say(&mut self, place: &Place, trouble: Option<String>) {
        let (title, why) = match (place, trouble) {
            (Place::Outside(why), _) => ("out of service", why.clone()),
            (Place::Member { .. }, Some(why)) => ("replica set", why),
            (Place::Member { primary }, None) => {
                let state = if *primary { "primary" } else { "secondary" };
                if self.said != state {
                    log::info!(state; "replica set");
                    self.said = state.to_owned();
                }
                return;
            }
        };
        if why != self.said {
            log::warn!(err = why.as_str(); "{title}");
            self.said = why;
        }
    }
}

/// Lets another member take over, if this one is the primary and another one serves. Before it ends.
pub(crate) async fn step_aside(layout: &Layout, keys: &Keys) {
    let stepping = async {
        let keeper = Mongod::at(layout.local(), Some(&keeper(keys)))?;
        if keeper.hello().await?.state != MemberState::Primary {
            return Ok(());
        }
        let host = layout.host();
        if keeper.members().await?.iter().any(|member| member.serves && member.host != host) {
            keeper.step_down().await?;
            log::info!("another registry node takes over");
        }
        Ok::<_, RegistryError>(())
    };
    if let Err(e) = stepping.await {
        log::warn!(err:% = Chain(&e); "no other registry node takes over yet");
    }
}

fn keeper(keys: &Keys) -> User {
    User { name: KEEPER.to_owned(), password: Secret::new(keys.keeper.expose()) }
}

/// The user that changes the replica set.
pub(crate) const KEEPER: &str = "headwater-keeper";
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(500);
/// Between two questions to EC2: while all is well, and while something is to be done.
const LIST: Duration = PAUSE;
const LIST_SOON: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_taken_for_another_secret() {
        let check = |retryable: bool, says_secret: bool| {
            let (attempted, servers) = ("make user headwater-keeper".to_owned(), "127.0.0.1:27017".to_owned());
            let source = "Error code 14031 (OutOfDiskSpace)".into();
            let refused = RegistryError::Refused { attempted, servers, retryable, source };
            let said = Chain(&KeeperError::of_first_user(refused)).to_string();
            assert_eq!(said.contains("begun with another secret"), says_secret, "{said}");
            assert!(said.contains("OutOfDiskSpace"), "{said}");
        };
        check(true, false);
        check(false, true);
    }
}
