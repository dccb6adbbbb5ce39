//! The replica set as one member has it: its configuration in a file, and whether it is the primary. The first member that a
//! majority can be reached from becomes it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::Database;
use mongodb::bson::{self, Bson, Document, doc};

use headwater_tests::replica_set::OUT_OF_DISK_SPACE;

use crate::conf::Conf;
use crate::connection::ask;

/// One member.
#[derive(Debug)]
pub(crate) struct Set {
    name: String,
    me: String,
    key: String,
    file: PathBuf,
    users: PathBuf,
    /// FerretDB, as one who may make users.
    admin: Database,
    config: Mutex<Option<Document>>,
    primary: AtomicBool,
}

impl Set {
    /// As it was when it ended.
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

    /// Adds to FerretDB's own hello what makes it a member's.
    pub(crate) fn describe(&self, hello: &mut Document) {
        hello.remove("topologyVersion");
        let hosts = self.hosts();
        let (primary, member) = (self.is_primary(), hosts.contains(&self.me));
        hello.insert("isWritablePrimary", primary);
        hello.insert("ismaster", primary);
        hello.insert("secondary", member && !primary);
        if member {
            hello.insert("setName", &self.name);
            hello.insert("setVersion", version(&self.held().clone().unwrap_or_default()));
            hello.insert("hosts", hosts);
            hello.insert("me", &self.me);
        } else {
            hello.insert("isreplicaset", true);
        }
    }

    pub(crate) async fn initiate(&self, command: &Document) -> Document {
        let Ok(config) = command.get_document("replSetInitiate") else { return failure(93, "no configuration") };
        if self.held().is_some() {
            return failure(23, "already initialized");
        }
        if config.get_str("_id").unwrap_or_default() != self.name || hosts_of(config) != [self.me.as_str()] {
            return failure(93, "not the name or the members that this one was started with");
        }
        let mut config = config.clone();
        config.insert("version", 1);
        self.keep(config);
        self.primary.store(true, Ordering::SeqCst);
        doc! { "ok": 1 }
    }

    pub(crate) fn config(&self) -> Document {
        match self.held().clone() {
            Some(config) => doc! { "ok": 1, "config": config },
            None => failure(94, "no replset config has been received"),
        }
    }

    pub(crate) async fn status(&self) -> Document {
        let mut members = Vec::new();
        for host in self.hosts() {
            let primary = if host == self.me { Some(self.is_primary()) } else { self.ask_primary(&host).await };
            let (health, state) = primary.map_or((0.0, 8), |primary| (1.0, if primary { 1 } else { 2 }));
            members.push(doc! { "name": host, "health": health, "state": state });
        }
        doc! { "ok": 1, "set": &self.name, "members": members }
    }

    pub(crate) async fn reconfigure(&self, command: &Document) -> Document {
        let Ok(next) = command.get_document("replSetReconfig") else { return failure(93, "no configuration") };
        let Some(now) = self.held().clone().filter(|_| self.is_primary()) else {
            return failure(10_107, "not primary");
        };
        if command.contains_key("force") || version(next) != version(&now) + 1 {
            return failure(103, "not the next version, or forced");
        }
        let (before, after) = (hosts_of(&now), hosts_of(next));
        let changes = before.iter().filter(|host| !after.contains(host)).count()
            + after.iter().filter(|host| !before.contains(host)).count();
        if changes > 1 {
            return failure(103, "only one voting change at a time");
        }
        for host in after.iter().filter(|host| **host != self.me) {
            let told = ask(host, doc! { "standIn": "config", "config": next.clone() }, &self.key).await;
            // One that does not answer hears of it when it asks.
            if told.is_err() && !before.contains(host) {
                return failure(74, "the new member does not answer, or has another key");
            }
        }
        self.keep(next.clone());
        doc! { "ok": 1 }
    }

    pub(crate) async fn step_down(&self) -> Document {
        for host in self.hosts().into_iter().filter(|host| *host != self.me) {
            self.primary.store(false, Ordering::SeqCst);
            if ask(&host, doc! { "standIn": "lead" }, &self.key).await.is_ok() {
                return doc! { "ok": 1 };
            }
            self.primary.store(true, Ordering::SeqCst);
        }
        failure(262, "no electable secondaries")
    }

    /// What another member says.
    pub(crate) async fn on_peer(&self, command: &Document) -> Document {
        if command.get_str("key").unwrap_or_default() != self.key {
            return failure(18, "another key");
        }
        match (command.get_str("standIn"), command.get_document("config")) {
            (Ok("config"), Ok(config)) if self.held().as_ref().is_none_or(|now| version(now) <= version(config)) => {
                self.keep(config.clone());
                self.primary.store(false, Ordering::SeqCst);
            }
            (Ok("lead"), _) => self.primary.store(true, Ordering::SeqCst),
            _ => {}
        }
        doc! { "ok": 1, "primary": self.is_primary(), "config": self.held().clone().unwrap_or_default() }
    }

    /// `createUser` and `updateUser`: FerretDB has the passwords, a file the roles.
    pub(crate) async fn put_user(&self, name: &str, command: &Document) -> Document {
        if !self.is_primary() {
            return failure(10_107, "not primary");
        }
        if self.is_full() {
            return failure(OUT_OF_DISK_SPACE, "no space left on device");
        }
        let Ok(user) = command.get_str(name).map(str::to_owned) else { return failure(2, "no user") };
        let mut users = self.known_users();
        match (name, users.contains_key(&user)) {
            ("createUser", true) => return failure(51_003, "user already exists"),
            ("updateUser", false) => return failure(11, "user not found"),
            _ => {}
        }
        let mut theirs = doc! { name: &user, "pwd": command.get("pwd").cloned().unwrap_or(Bson::Null) };
        if name == "createUser" {
            // FerretDB knows these together or none.
            let roles = ["clusterAdmin", "readWriteAnyDatabase"].map(|role| doc! { "role": role, "db": "admin" });
            theirs.insert("roles", roles.to_vec());
        }
        if let Err(e) = self.admin.run_command(theirs).await {
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

    /// As a test has it, which makes a file for it.
    fn is_full(&self) -> bool {
        self.users.with_extension("full").exists()
    }

    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.known_users().get_array(user).is_ok_and(|roles| roles.contains(&Bson::from(role)))
    }

    pub(crate) fn has_no_users(&self) -> bool {
        self.known_users().is_empty()
    }

    /// Becomes the primary and lets it be, as the others can be reached. Never ends.
    pub(crate) async fn vote(&self) {
        loop {
            let hosts = self.hosts();
            let (mut reached, mut led) = (0, false);
            let (mut at_us, mut before_us) = (false, false);
            for host in &hosts {
                if *host == self.me {
                    (reached, at_us) = (reached + 1, true);
                } else if let Some(primary) = self.ask_primary(host).await {
                    (reached, led, before_us) = (reached + 1, led || primary, before_us || !at_us);
                }
            }
            let majority = 2 * reached > hosts.len() && !hosts.is_empty();
            if !majority {
                self.primary.store(false, Ordering::SeqCst);
            } else if !led && !before_us {
                self.primary.store(true, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ask_primary(&self, host: &str) -> Option<bool> {
        let answer = ask(host, doc! { "standIn": "who" }, &self.key).await.ok()?;
        let primary = answer.get_bool("primary").ok()?;
        let config = answer.get_document("config").cloned().unwrap_or_default();
        let known = self.held().as_ref().map_or(0, version);
        if primary && version(&config) > known {
            self.keep(config);
        }
        Some(primary)
    }

    fn known_users(&self) -> Document {
        std::fs::read(&self.users).ok().and_then(|bytes| bson::deserialize_from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn hosts(&self) -> Vec<String> {
        self.held().as_ref().map(|config| hosts_of(config).into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    fn keep(&self, config: Document) {
        // A member that cannot write is one that has forgotten: what the tests then see is true.
        let _ = bson::serialize_to_vec(&config).map(|bytes| std::fs::write(&self.file, bytes));
        *self.held() = Some(config);
    }

    fn held(&self) -> MutexGuard<'_, Option<Document>> {
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

/// An answer that says no.
pub(crate) fn failure(code: i32, message: &str) -> Document {
    doc! { "ok": 0, "code": code, "codeName": "StandIn", "errmsg": message }
}
