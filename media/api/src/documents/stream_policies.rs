//! The stored form of an app's policies per stream: a list of `{ stream, publish, play }`.
//!
//! Not a map: a stream id may contain dots, which not every database accepts in a field's name.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Policy, StreamPolicy};

#[derive(Serialize, Deserialize)]
struct Entry<Id> {
    stream: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    publish: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    play: Option<Policy>,
}

pub(super) fn serialize<S: Serializer>(streams: &BTreeMap<String, StreamPolicy>, s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(streams.iter().map(|(stream, &StreamPolicy { publish, play })| Entry { stream, publish, play }))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, StreamPolicy>, D::Error> {
    let entries = Vec::<Entry<String>>::deserialize(d)?;
    Ok(entries.into_iter().map(|Entry { stream, publish, play }| (stream, StreamPolicy { publish, play })).collect())
}
