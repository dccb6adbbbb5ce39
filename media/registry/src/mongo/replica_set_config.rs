//! What a mongod reports about its replica set, and the set's configuration with the two changes
//! that are made to it. Values only.
//!
//! A configuration keeps fields that are unknown here, so that a change of one member changes
//! nothing else.

use mongodb::bson::{Bson, Document, doc};

/// Time without a primary after which the members elect another one: two heartbeats. MongoDB's
/// default of 10 s is as long as nodes may wait for their writes in total.
const ELECTION_TIMEOUT_MS: i32 = 4_000;

/// A mongod's answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its state in its set.
    pub state: MemberState,
    /// Name of the set, if it is in one.
    pub set: Option<String>,
    /// The members that it knows, `host:port`, without arbiters and hidden ones, which it does not
    /// list.
    pub hosts: Vec<String>,
}

/// State of a mongod in its replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It accepts writes.
    Primary,
    /// It replicates from the primary.
    Secondary,
    /// A member that does not serve yet, or not at the moment: it is starting, copying or catching
    /// up.
    NotReady,
    /// It was started for a replica set and has no configuration: new, or removed.
    Uninitialized,
    /// It was not started for a replica set.
    Standalone,
}

impl Hello {
    pub(super) fn of(answer: &Document) -> Self {
        let is = |key: &str| answer.get_bool(key).unwrap_or(false);
        let set = answer.get_str("setName").ok().map(str::to_owned);
        let state = match &set {
            None if is("isreplicaset") => MemberState::Uninitialized,
            None => MemberState::Standalone,
            Some(_) if is("isWritablePrimary") => MemberState::Primary,
            Some(_) if is("secondary") => MemberState::Secondary,
            Some(_) => MemberState::NotReady,
        };
        // A new member that has not caught up cannot be elected; until then it is listed as
        // passive.
        let hosts = ["hosts", "passives"].into_iter().filter_map(|key| answer.get_array(key).ok()).flatten();
        let hosts = hosts.filter_map(|host| host.as_str().map(str::to_owned)).collect();
        Self { state, set, hosts }
    }
}

/// A member from the point of view of another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// `host:port`.
    pub host: String,
    /// It answers the other member.
    pub reachable: bool,
    /// It is primary, secondary, or an arbiter, which has nothing to catch up with.
    pub serving: bool,
}

impl MemberStatus {
    /// From the answer to `replSetGetStatus`.
    pub(super) fn all_of(answer: &Document) -> Vec<Self> {
        let members = answer.get_array("members").into_iter().flatten().filter_map(Bson::as_document);
        members
            .filter_map(|member| {
                let (health, state) = (as_integer(member.get("health")), as_integer(member.get("state")));
                // MongoDB's member states: 1 PRIMARY, 2 SECONDARY, 7 ARBITER.
                let (reachable, serving) = (health == Some(1), matches!(state, Some(1 | 2 | 7)));
                Some(Self { host: member.get_str("name").ok()?.to_owned(), reachable, serving: reachable && serving })
            })
            .collect()
    }
}

/// The configuration of a replica set.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaSetConfig(Document);

impl ReplicaSetConfig {
    /// The first configuration of a set: one member.
    pub fn initial(set: &str, host: &str) -> Self {
        let settings = doc! { "electionTimeoutMillis": ELECTION_TIMEOUT_MS };
        Self(doc! { "_id": set, "members": [{ "_id": 0, "host": host }], "settings": settings })
    }

    /// From the answer to `replSetGetConfig`.
    pub(super) fn of(answer: &Document) -> Option<Self> {
        let config = answer.get_document("config").ok()?;
        config.get_array("members").ok()?;
        Some(Self(config.clone()))
    }

    pub(super) fn document(&self) -> &Document {
        &self.0
    }

    /// `host:port` of each member, and whether it votes.
    pub fn members(&self) -> Vec<(String, bool)> {
        let host = |member: &Document| member.get_str("host").unwrap_or_default().to_owned();
        self.member_documents().map(|member| (host(member), as_integer(member.get("votes")) != Some(0))).collect()
    }

    /// The next configuration, with one more voting member.
    pub fn with_member(&self, host: &str) -> Self {
        let ids: Vec<i64> = self.member_documents().filter_map(|member| as_integer(member.get("_id"))).collect();
        let next = ids.iter().max().map_or(0, |greatest| greatest + 1);
        // MongoDB allows ids up to 255; after that many replacements, a freed id is reused.
        let id = if next <= MAX_MEMBER_ID { Some(next) } else { (0..=MAX_MEMBER_ID).find(|id| !ids.contains(id)) };
        let member = doc! { "_id": i32::try_from(id.unwrap_or(MAX_MEMBER_ID)).unwrap_or_default(), "host": host };
        self.next_version(|members| members.push(Bson::Document(member)))
    }

    /// The next configuration, without this member.
    pub fn without_member(&self, host: &str) -> Self {
        self.next_version(|members| {
            members.retain(|member| member.as_document().and_then(|m| m.get_str("host").ok()) != Some(host))
        })
    }

    fn next_version(&self, change: impl FnOnce(&mut Vec<Bson>)) -> Self {
        let mut document = self.0.clone();
        if let Ok(members) = document.get_array_mut("members") {
            change(members);
        }
        let version = as_integer(document.get("version")).unwrap_or(1);
        document.insert("version", i32::try_from(version + 1).unwrap_or(i32::MAX));
        Self(document)
    }

    fn member_documents(&self) -> impl Iterator<Item = &Document> {
        self.0.get_array("members").into_iter().flatten().filter_map(Bson::as_document)
    }
}

/// MongoDB returns integers as any of its three numeric types.
fn as_integer(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        // Whole and small: states, votes, versions.
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

const MAX_MEMBER_ID: i64 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_gives_the_state_of_a_member() {
        let check = |answer: Document, state: MemberState, set: Option<&str>| {
            let hello = Hello::of(&answer);
            assert_eq!((hello.state, hello.set.as_deref()), (state, set), "{answer}");
        };
        check(doc! { "isWritablePrimary": true }, MemberState::Standalone, None);
        check(doc! { "isreplicaset": true, "isWritablePrimary": false }, MemberState::Uninitialized, None);
        check(doc! { "setName": "s", "isWritablePrimary": true }, MemberState::Primary, Some("s"));
        check(doc! { "setName": "s", "secondary": true }, MemberState::Secondary, Some("s"));
        check(doc! { "setName": "s", "secondary": false }, MemberState::NotReady, Some("s"));
        assert_eq!(Hello::of(&doc! { "hosts": ["a:1", "b:2"] }).hosts, ["a:1", "b:2"]);
        let copying = doc! { "hosts": ["a:1"], "passives": ["b:2"], "arbiters": ["c:3"] };
        assert_eq!(Hello::of(&copying).hosts, ["a:1", "b:2"]);
    }

    #[test]
    fn status_lists_reachable_and_serving_members() {
        let answer = doc! { "members": [
            { "name": "a:1", "health": 1.0, "state": 1 }, { "name": "b:1", "health": 1.0, "state": 5_i64 },
            { "name": "c:1", "health": 0.0, "state": 8 }, { "name": "d:1", "health": 1, "state": 2 }, { "health": 1.0 },
            { "name": "e:1", "health": 1.0, "state": 7 },
        ] };
        let members: Vec<_> =
            MemberStatus::all_of(&answer).into_iter().map(|m| (m.host, m.reachable, m.serving)).collect();
        let expected = [
            ("a:1", true, true),
            ("b:1", true, false),
            ("c:1", false, false),
            ("d:1", true, true),
            ("e:1", true, true),
        ];
        assert_eq!(members, expected.map(|(host, reachable, serving)| (host.to_owned(), reachable, serving)));
    }

    #[test]
    fn change_of_one_member_keeps_all_other_fields() {
        let config = ReplicaSetConfig(doc! {
            "_id": "s", "version": 7, "term": 3, "settings": { "electionTimeoutMillis": 5_000 },
            "members": [{ "_id": 0, "host": "a:1", "priority": 2.0 }, { "_id": 4, "host": "b:1", "votes": 0 }],
        });
        assert_eq!(config.members(), [("a:1".to_owned(), true), ("b:1".to_owned(), false)]);
        let expected = doc! {
            "_id": "s", "version": 8, "term": 3, "settings": { "electionTimeoutMillis": 5_000 },
            "members": [
                { "_id": 0, "host": "a:1", "priority": 2.0 }, { "_id": 4, "host": "b:1", "votes": 0 }, { "_id": 5, "host": "c:1" },
            ],
        };
        assert_eq!(config.with_member("c:1").0, expected);
        let fewer = config.without_member("b:1");
        assert_eq!((fewer.members().len(), fewer.0.get_i32("version").ok()), (1, Some(8)));
        assert_eq!(config.without_member("unknown:1").members().len(), 2);
    }

    #[test]
    fn member_ids_are_reused_once_all_are_taken() {
        let members = doc! { "_id": "s", "members": [{ "_id": 0, "host": "a:1" }, { "_id": 255, "host": "b:1" }] };
        let config = ReplicaSetConfig(members);
        assert_eq!(config.with_member("c:1").member_documents().last().unwrap().get_i32("_id").ok(), Some(1));
    }
}
