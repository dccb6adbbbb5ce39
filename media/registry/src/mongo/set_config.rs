//! What a mongod says of its replica set, and the set's configuration with the two changes that are made to it. Values: nothing
//! here asks anybody.
//!
//! A configuration keeps what it does not know, so that a change of one member changes nothing else.

use mongodb::bson::{Bson, Document, doc};

/// What a mongod says of itself to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// How it stands with its set.
    pub state: MemberState,
    /// The set's name, if it is in one.
    pub set: Option<String>,
    /// The members of its set as it knows them, `host:port`; without arbiters and hidden ones, which it does not tell.
    pub hosts: Vec<String>,
}

/// How a mongod stands with its replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It takes writes.
    Primary,
    /// It follows the primary.
    Secondary,
    /// A member that does not serve yet or at the moment: it starts, copies, or has to catch up.
    Busy,
    /// It could be a member, and has no set: new, or removed.
    Setless,
    /// It was not started as a member.
    Alone,
}

impl Hello {
    pub(super) fn of(answer: &Document) -> Self {
        let is = |key: &str| answer.get_bool(key).unwrap_or(false);
        let set = answer.get_str("setName").ok().map(str::to_owned);
        let state = match &set {
            None if is("isreplicaset") => MemberState::Setless,
            None => MemberState::Alone,
            Some(_) if is("isWritablePrimary") => MemberState::Primary,
            Some(_) if is("secondary") => MemberState::Secondary,
            Some(_) => MemberState::Busy,
        };
        // One that was taken in and has not caught up cannot be elected: it is among the passive ones until then.
        let hosts = ["hosts", "passives"].into_iter().filter_map(|key| answer.get_array(key).ok()).flatten();
        let hosts = hosts.filter_map(|host| host.as_str().map(str::to_owned)).collect();
        Self { state, set, hosts }
    }
}

/// A member as the one asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// `host:port`.
    pub host: String,
    /// It answers the one asked.
    pub answers: bool,
    /// Primary or secondary, or an arbiter, which has nothing to catch up with.
    pub serves: bool,
}

impl MemberStatus {
    /// Of `replSetGetStatus`.
    pub(super) fn all_of(answer: &Document) -> Vec<Self> {
        let members = answer.get_array("members").into_iter().flatten().filter_map(Bson::as_document);
        members
            .filter_map(|member| {
                let (health, state) = (number(member.get("health")), number(member.get("state")));
                // Member states 1, 2 and 7 of MongoDB's manual; what is not there does not answer.
                let (answers, serves) = (health == Some(1), matches!(state, Some(1 | 2 | 7)));
                Some(Self { host: member.get_str("name").ok()?.to_owned(), answers, serves: answers && serves })
            })
            .collect()
    }
}

/// The configuration of a replica set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetConfig(Document);

impl SetConfig {
    /// The first of a set: one member.
    pub fn first(set: &str, host: &str) -> Self {
        let settings = doc! { "electionTimeoutMillis": ELECTION_MS };
        Self(doc! { "_id": set, "members": [{ "_id": 0, "host": host }], "settings": settings })
    }

    pub(super) fn of(answer: &Document) -> Option<Self> {
        let config = answer.get_document("config").ok()?;
        config.get_array("members").ok()?;
        Some(Self(config.clone()))
    }

    /// As MongoDB takes it.
    pub(super) fn document(&self) -> &Document {
        &self.0
    }

    /// `host:port` of each member, and whether it votes.
    pub fn members(&self) -> Vec<(String, bool)> {
        let host = |member: &Document| member.get_str("host").unwrap_or_default().to_owned();
        self.documents().map(|member| (host(member), number(member.get("votes")) != Some(0))).collect()
    }

    /// The next one, with one voting member more.
    pub fn with(&self, host: &str) -> Self {
        let ids: Vec<i64> = self.documents().filter_map(|member| number(member.get("_id"))).collect();
        let next = ids.iter().max().map_or(0, |greatest| greatest + 1);
        // MongoDB allows ids up to 255; after so many replacements one that has become free is as good.
        let id = if next <= MAX_ID { Some(next) } else { (0..=MAX_ID).find(|id| !ids.contains(id)) };
        let member = doc! { "_id": i32::try_from(id.unwrap_or(MAX_ID)).unwrap_or_default(), "host": host };
        self.next(|members| members.push(Bson::Document(member)))
    }

    /// The next one, without this member.
    pub fn without(&self, host: &str) -> Self {
        self.next(|members| {
            members.retain(|member| member.as_document().and_then(|m| m.get_str("host").ok()) != Some(host))
        })
    }

    fn next(&self, change: impl FnOnce(&mut Vec<Bson>)) -> Self {
        let mut document = self.0.clone();
        if let Ok(members) = document.get_array_mut("members") {
            change(members);
        }
        let version = number(document.get("version")).unwrap_or(1);
        document.insert("version", i32::try_from(version + 1).unwrap_or(i32::MAX));
        Self(document)
    }

    fn documents(&self) -> impl Iterator<Item = &Document> {
        self.0.get_array("members").into_iter().flatten().filter_map(Bson::as_document)
    }
}

/// MongoDB gives whole numbers as any of its three kinds.
fn number(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        // Whole and small: states, votes, versions.
        Bson::Double(n) => Some(*n as i64),
        _ => None,
    }
}

const MAX_ID: i64 = 255;
/// Members elect another primary once theirs has been silent for so long: two heartbeats. MongoDB's own 10 s are all that nodes may wait
/// for their writes.
const ELECTION_MS: i32 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_tells_how_a_mongod_stands() {
        let check = |answer: Document, state: MemberState, set: Option<&str>| {
            let hello = Hello::of(&answer);
            assert_eq!((hello.state, hello.set.as_deref()), (state, set), "{answer}");
        };
        check(doc! { "isWritablePrimary": true }, MemberState::Alone, None);
        check(doc! { "isreplicaset": true, "isWritablePrimary": false }, MemberState::Setless, None);
        check(doc! { "setName": "s", "isWritablePrimary": true }, MemberState::Primary, Some("s"));
        check(doc! { "setName": "s", "secondary": true }, MemberState::Secondary, Some("s"));
        check(doc! { "setName": "s", "secondary": false }, MemberState::Busy, Some("s"));
        assert_eq!(Hello::of(&doc! { "hosts": ["a:1", "b:2"] }).hosts, ["a:1", "b:2"]);
        let copying = doc! { "hosts": ["a:1"], "passives": ["b:2"], "arbiters": ["c:3"] };
        assert_eq!(Hello::of(&copying).hosts, ["a:1", "b:2"]);
    }

    #[test]
    fn a_status_tells_who_answers_and_who_serves() {
        let answer = doc! { "members": [
            { "name": "a:1", "health": 1.0, "state": 1 }, { "name": "b:1", "health": 1.0, "state": 5_i64 },
            { "name": "c:1", "health": 0.0, "state": 8 }, { "name": "d:1", "health": 1, "state": 2 }, { "health": 1.0 },
            { "name": "e:1", "health": 1.0, "state": 7 },
        ] };
        let seen: Vec<_> = MemberStatus::all_of(&answer).into_iter().map(|m| (m.host, m.answers, m.serves)).collect();
        let expected = [
            ("a:1", true, true),
            ("b:1", true, false),
            ("c:1", false, false),
            ("d:1", true, true),
            ("e:1", true, true),
        ];
        assert_eq!(seen, expected.map(|(host, answers, serves)| (host.to_owned(), answers, serves)));
    }

    #[test]
    fn a_change_of_one_member_leaves_all_else_as_it_is() {
        let config = SetConfig(doc! {
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
        assert_eq!(config.with("c:1").0, expected);
        let fewer = config.without("b:1");
        assert_eq!((fewer.members().len(), fewer.0.get_i32("version").ok()), (1, Some(8)));
        assert_eq!(config.without("nobody:1").members().len(), 2);
    }

    #[test]
    fn ids_are_used_again_once_all_are_used_up() {
        let config =
            SetConfig(doc! { "_id": "s", "members": [{ "_id": 0, "host": "a:1" }, { "_id": 255, "host": "b:1" }] });
        assert_eq!(config.with("c:1").documents().last().unwrap().get_i32("_id").ok(), Some(1));
    }
}
