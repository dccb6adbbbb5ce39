//! The replica set from the point of view of one member: its configuration, in a file, and whether
//! this member is the primary. The first member that reaches a majority becomes the primary.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{self, Bson, Document, doc};

use headwater_tests::replica_set::OUT_OF_DISK_SPACE;

use crate::conf::Conf;
use crate::peer::send_to_member;

/// The replica set state of this member.
#[derive(Debug)]
pub(crate) struct Set {
    name: String,
    me: String,
    key: String,
    file: PathBuf,
    users: PathBuf,
    /// FerretDB's `admin` database, with a user that may create users.
    admin: Database,
    config: Mutex<Option<Document>>,
    primary: AtomicBool,
}

impl Set {
    /// Loads the state that the previous process left.
    pub(crate) fn load(conf: &Conf, users: PathBuf, admin: Database) -> anyhow::Result<Self> {
        let file = conf.folder.join("config.bson");
        let config = std::fs::read(&file).ok().map(|bytes| bson::deserialize_from_slice(&bytes)).transpose()?;
        let address = conf.addresses.last().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            name: conf.set.clone(),
            me: format!("{address}:{}", conf.port),
            key: conf.key.clone(),
            file,
            users,
            admin,
            config: Mutex::new(config),
            primary: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.primary.load(Ordering::SeqCst)
    }

    /// Adds the fields of a replica set member to FerretDB's `hello`.
    pub(crate) fn describe(&self, hello: &mut Document) {
        hello.remove("topologyVersion");
        let hosts = self.hosts();
        let (primary, member) = (self.is_primary(), hosts.contains(&self.me));
        hello.insert("isWritablePrimary", primary);
        hello.insert("ismaster", primary);
        hello.insert("secondary", member && !primary);
        if member {
            hello.insert("setName", &self.name);
            hello.insert("setVersion", version(&self.lock_config().clone().unwrap_or_default()));
            hello.insert("hosts", hosts);
            hello.insert("me", &self.me);
        } else {
            hello.insert("isreplicaset", true);
        }
    }

    pub(crate) async fn initiate(&self, command: &Document) -> Document {
        let Ok(config) = command.get_document("replSetInitiate") else { return failure(93, "no configuration") };
        if self.lock_config().is_some() {
            return failure(23, "already initialized");
        }
        if config.get_str("_id").unwrap_or_default() != self.name || hosts_of(config) != [self.me.as_str()] {
            return failure(93, "name or members differ from those that this server was started with");
        }
        let mut config = config.clone();
        config.insert("version", 1);
        self.store_config(config);
        self.primary.store(true, Ordering::SeqCst);
        doc! { "ok": 1 }
    }

    pub(crate) fn config(&self) -> Document {
        match self.lock_config().clone() {
            Some(config) => doc! { "ok": 1, "config": config },
            None => failure(94, "no replset config has been received"),
        }
    }

    pub(crate) async fn status(&self) -> Document {
        let mut members = Vec::new();
        for host in self.hosts() {
            let primary = if host == self.me { Some(self.is_primary()) } else { self.query_member(&host).await };
            let (health, state) = primary.map_or((0.0, 8), |primary| (1.0, if primary { 1 } else { 2 }));
            members.push(doc! { "name": host, "health": health, "state": state });
        }
        doc! { "ok": 1, "set": &self.name, "members": members }
    }

    pub(crate) async fn reconfigure(&self, command: &Document) -> Document {
        let Ok(next) = command.get_document("replSetReconfig") else { return failure(93, "no configuration") };
        let Some(current) = self.lock_config().clone().filter(|_| self.is_primary()) else {
            return failure(10_107, "not primary");
        };
        if command.contains_key("force") || version(next) != version(&current) + 1 {
            return failure(103, "not the next version, or forced");
        }
        let (before, after) = (hosts_of(&current), hosts_of(next));
        let changes = before.iter().filter(|host| !after.contains(host)).count()
            + after.iter().filter(|host| !before.contains(host)).count();
        if changes > 1 {
            return failure(103, "only one voting change at a time");
        }
        for host in after.iter().filter(|host| **host != self.me) {
            let sent = send_to_member(host, doc! { "standIn": "config", "config": next.clone() }, &self.key).await;
            // A member that does not answer gets the configuration when it queries the primary.
            if sent.is_err() && !before.contains(host) {
                return failure(74, "the new member does not answer, or has another key");
            }
        }
        self.store_config(next.clone());
        doc! { "ok": 1 }
    }

    pub(crate) async fn step_down(&self) -> Document {
        for host in self.hosts().into_iter().filter(|host| *host != self.me) {
            self.primary.store(false, Ordering::SeqCst);
            if send_to_member(&host, doc! { "standIn": "lead" }, &self.key).await.is_ok() {
                return doc! { "ok": 1 };
            }
            self.primary.store(true, Ordering::SeqCst);
        }
        failure(262, "no electable secondaries")
    }

    /// Handles a command of another member.
    pub(crate) async fn on_peer(&self, command: &Document) -> Document {
        if command.get_str("key").unwrap_or_default() != self.key {
            return failure(18, "another key");
        }
        match (command.get_str("standIn"), command.get_document("config")) {
            (Ok("config"), Ok(config))
                if self.lock_config().as_ref().is_none_or(|current| version(current) <= version(config)) =>
            {
                self.store_config(config.clone());
                self.primary.store(false, Ordering::SeqCst);
            }
            (Ok("lead"), _) => self.primary.store(true, Ordering::SeqCst),
            _ => {}
        }
        doc! { "ok": 1, "primary": self.is_primary(), "config": self.lock_config().clone().unwrap_or_default() }
    }

    /// `createUser` and `updateUser`: FerretDB stores the password, a file the roles.
    pub(crate) async fn put_user(&self, name: &str, command: &Document) -> Document {
        if !self.is_primary() {
            return failure(10_107, "not primary");
        }
        if self.is_full() {
            return failure(OUT_OF_DISK_SPACE, "no space left on device");
        }
        let Ok(user) = command.get_str(name).map(str::to_owned) else { return failure(2, "no user") };
        let mut users = self.read_users();
        match (name, users.contains_key(&user)) {
            ("createUser", true) => return failure(51_003, "user already exists"),
            ("updateUser", false) => return failure(11, "user not found"),
            _ => {}
        }
        let mut forwarded = doc! { name: &user, "pwd": command.get("pwd").cloned().unwrap_or(Bson::Null) };
        if name == "createUser" {
            // FerretDB supports only these two roles, and only together.
            let roles = ["clusterAdmin", "readWriteAnyDatabase"].map(|role| doc! { "role": role, "db": "admin" });
            forwarded.insert("roles", roles.to_vec());
        }
        if let Err(e) = self.admin.run_command(forwarded).await {
            return failure(1, &e.to_string());
        }
        let roles = command.get_array("roles").into_iter().flatten().filter_map(Bson::as_document);
        let roles: Vec<_> = roles.filter_map(|role| role.get_str("role").ok().map(str::to_owned)).collect();
        users.insert(user, roles);
        match bson::serialize_to_vec(&users).map(|bytes| std::fs::write(&self.users, bytes)) {
            Ok(Ok(())) => doc! { "ok": 1 },
            _ => failure(1, "could not write the users"),
        }
    }

    /// True while a test simulates a full disk.
    fn is_full(&self) -> bool {
        self.users.with_extension("full").exists()
    }

    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.read_users().get_array(user).is_ok_and(|roles| roles.contains(&Bson::from(role)))
    }

    pub(crate) fn has_no_users(&self) -> bool {
        self.read_users().is_empty()
    }

    /// Becomes the primary, or stops being it, depending on which members are reachable. Never
    /// returns.
    pub(crate) async fn run_elections(&self) {
        loop {
            let hosts = self.hosts();
            let (mut reached, mut has_primary) = (0, false);
            // A reachable member earlier in the list becomes the primary instead of this one.
            let (mut seen_self, mut has_earlier) = (false, false);
            for host in &hosts {
                if *host == self.me {
                    (reached, seen_self) = (reached + 1, true);
                } else if let Some(primary) = self.query_member(host).await {
                    (reached, has_primary) = (reached + 1, has_primary || primary);
                    has_earlier |= !seen_self;
                }
            }
            let majority = 2 * reached > hosts.len() && !hosts.is_empty();
            if !majority {
                self.primary.store(false, Ordering::SeqCst);
            } else if !has_primary && !has_earlier {
                self.primary.store(true, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether another member is the primary; `None` if it does not answer. Adopts the primary's
    /// configuration if it is newer.
    async fn query_member(&self, host: &str) -> Option<bool> {
        let answer = send_to_member(host, doc! { "standIn": "who" }, &self.key).await.ok()?;
        let primary = answer.get_bool("primary").ok()?;
        let config = answer.get_document("config").cloned().unwrap_or_default();
        let current = self.lock_config().as_ref().map_or(0, version);
        if primary && version(&config) > current {
            self.store_config(config);
        }
        Some(primary)
    }

    fn read_users(&self) -> Document {
        std::fs::read(&self.users).ok().and_then(|bytes| bson::deserialize_from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn hosts(&self) -> Vec<String> {
        self.lock_config()
            .as_ref()
            .map(|config| hosts_of(config).into_iter().map(str::to_owned).collect())
            .unwrap_or_default()
    }

    fn store_config(&self, config: Document) {
        // A failed write appears as a member that lost its configuration, which tests then see.
        let _ = bson::serialize_to_vec(&config).map(|bytes| std::fs::write(&self.file, bytes));
        *self.lock_config() = Some(config);
    }

    fn lock_config(&self) -> MutexGuard<'_, Option<Document>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hosts_of(config: &Document) -> Vec<&str> {
    let members = config.get_array("members").into_iter().flatten().filter_map(Bson::as_document);
    members.filter_map(|member| member.get_str("host").ok()).collect()
}

fn version(config: &Document) -> i32 {
    config.get_i32("version").unwrap_or_default()
}

/// An error answer.
pub(crate) fn failure(code: i32, message: &str) -> Document {
    doc! { "ok": 0, "code": code, "codeName": "StandIn", "errmsg": message }
}
