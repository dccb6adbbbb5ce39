//! `headwaterd nodes` and `headwaterd streams`: print the nodes and streams of the cluster as
//! tables, from its registry.
//!
//! A standalone node locks its registry while it runs; then the running engine is queried through
//! its REST API.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use headwater_api::config::Role;
use headwater_api::control::{ENDPOINTS_FILE, Endpoints};
use headwater_api::documents::{NodeRecord, StreamRecord};
use headwater_api::error::Chain;
use headwater_api::rest::{ClusterStream, NodeViewers};
use headwater_registry::{Nodes as _, Store, Streams as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::boot::plan::Plan;
use crate::cli::table::{format_age, or_dash, render_table};
use crate::cluster::open_registry;
use crate::process::engine_rest;

/// A node, with the field names of the REST API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    id: String,
    role: Role,
    group: String,
    zone: String,
    instance_type: String,
    image: String,
    version: String,
    in_the_cluster: bool,
    ready: bool,
    draining: bool,
    cpu_permille: u32,
    streams: u32,
    viewers: u32,
    egress_bps: u64,
    egress_capacity_bps: u64,
    age_ms: u64,
    silent_ms: u64,
    /// Public addresses first; the engine omits them for clients that are not logged in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
}

/// Returns all nodes.
///
/// # Errors
/// A message, if neither the registry nor the engine is reachable.
pub(crate) async fn nodes(plan: &Plan) -> Result<Vec<Node>, String> {
    match open_source(plan).await? {
        DataSource::Registry(store) => {
            Ok(store.nodes().await.map_err(|e| Chain(&e).to_string())?.iter().map(node_from).collect())
        }
        DataSource::Engine(engine) => query_engine(&engine, "/rest/v2/cluster/nodes/0/500").await,
    }
}

/// Returns all streams.
///
/// # Errors
/// A message, if neither the registry nor the engine is reachable.
pub(crate) async fn streams(plan: &Plan) -> Result<Vec<ClusterStream>, String> {
    match open_source(plan).await? {
        DataSource::Registry(store) => {
            let both = async { Ok((store.streams().await?, store.nodes().await?)) };
            let (streams, nodes) = both.await.map_err(|e: headwater_registry::RegistryError| Chain(&e).to_string())?;
            Ok(join_streams(&streams, &nodes))
        }
        DataSource::Engine(engine) => query_engine(&engine, "/rest/v2/cluster/streams/0/500").await,
    }
}

enum DataSource {
    Registry(Store),
    Engine(Box<Endpoints>),
}

async fn open_source(plan: &Plan) -> Result<DataSource, String> {
    match open_registry::open(plan).await {
        Ok(store) => Ok(DataSource::Registry(store)),
        Err(e) if e.is_locked() => {
            let path = plan.engine.node.data_dir.join(ENDPOINTS_FILE);
            let text = std::fs::read(&path).map_err(|_| format!("{}, and its engine does not serve yet", Chain(&e)))?;
            serde_json::from_slice(&text)
                .map(|engine| DataSource::Engine(Box::new(engine)))
                .map_err(|e| format!("{}: {e}", path.display()))
        }
        Err(e) => Err(Chain(&e).to_string()),
    }
}

async fn query_engine<T: DeserializeOwned>(engine: &Endpoints, path: &str) -> Result<T, String> {
    let answer = engine_rest::get(engine, path, REQUEST_TIMEOUT).await.map_err(|e| Chain(&e).to_string())?;
    if !answer.status().is_success() {
        return Err(format!("the engine answers {}: {}", answer.status(), String::from_utf8_lossy(answer.body())));
    }
    serde_json::from_slice(answer.body()).map_err(|e| format!("the engine's answer is invalid: {e}"))
}

fn node_from(record: &NodeRecord) -> Node {
    let NodeRecord { node, heartbeat, .. } = record;
    Node {
        id: node.id.clone(),
        role: node.role,
        group: node.group.clone(),
        zone: node.zone.clone(),
        instance_type: node.instance_type.clone(),
        image: node.image.clone(),
        version: node.version.clone(),
        in_the_cluster: record.alive,
        ready: heartbeat.ready,
        draining: heartbeat.draining,
        cpu_permille: heartbeat.load.cpu_permille,
        streams: heartbeat.load.streams,
        viewers: heartbeat.load.viewers,
        egress_bps: heartbeat.load.egress_bps,
        egress_capacity_bps: heartbeat.load.egress_capacity_bps,
        age_ms: record.age_ms,
        silent_ms: record.silent_ms,
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn join_streams(streams: &[StreamRecord], nodes: &[NodeRecord]) -> Vec<ClusterStream> {
    let mut by_name: HashMap<&str, Vec<NodeViewers>> = HashMap::new();
    for record in nodes.iter().filter(|record| record.alive) {
        for watched in record.heartbeat.watched.iter().filter(|watched| watched.viewers > 0) {
            let viewers = NodeViewers { node: record.node.id.clone(), viewers: watched.viewers.into() };
            by_name.entry(watched.name.as_str()).or_default().push(viewers);
        }
    }
    let stream = |record: &StreamRecord| {
        let mut viewers_by_node = by_name.remove(record.claim.name.as_str()).unwrap_or_default();
        viewers_by_node.sort_by(|a, b| b.viewers.cmp(&a.viewers).then_with(|| a.node.cmp(&b.node)));
        ClusterStream {
            name: record.claim.name.to_string(),
            origin: record.claim.owner.node.clone(),
            protocol: record.offer.protocol.clone(),
            age_ms: record.age_ms,
            viewers: viewers_by_node.iter().map(|at| at.viewers).sum(),
            viewers_by_node,
        }
    };
    streams.iter().map(stream).collect()
}

/// Formats nodes as a table.
pub(crate) fn nodes_table(nodes: &[Node]) -> String {
    let head = ["NODE", "ROLE", "ZONE", "STATE", "CPU", "STRM", "VIEW", "UP"].map(str::to_owned).to_vec();
    let row = |node: &Node| {
        let state = match (node.in_the_cluster, node.draining, node.ready) {
            (false, ..) => "dead",
            (true, true, _) => "draining",
            (true, false, true) => "ready",
            (true, false, false) => "starting",
        };
        vec![
            node.id.clone(),
            node.role.as_str().to_owned(),
            or_dash(&node.zone),
            state.to_owned(),
            format!("{}%", node.cpu_permille.div_ceil(10)),
            node.streams.to_string(),
            node.viewers.to_string(),
            format_age(node.age_ms),
        ]
    };
    render_table(head, nodes.iter().map(row).collect(), &[4, 5, 6, 7])
}

/// Formats streams as a table.
pub(crate) fn streams_table(streams: &[ClusterStream]) -> String {
    let head = ["STREAM", "ORIGIN", "OVER", "UP", "VIEW", "ON"].map(str::to_owned).to_vec();
    let row = |stream: &ClusterStream| {
        let first = stream.viewers_by_node.iter().take(2).map(|at| format!("{} {}", at.node, at.viewers));
        let mut on = first.collect::<Vec<_>>().join(", ");
        if let more @ 1.. = stream.viewers_by_node.len().saturating_sub(2) {
            let _ = write!(on, ", {more} more");
        }
        vec![
            stream.name.clone(),
            stream.origin.clone(),
            stream.protocol.clone(),
            format_age(stream.age_ms),
            stream.viewers.to_string(),
            or_dash(&on),
        ]
    };
    render_table(head, streams.iter().map(row).collect(), &[3, 4])
}

/// For one request to a running engine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(id: &str, role: &str, viewers: u32) -> NodeRecord {
        serde_json::from_value(json!({
            "id": id, "role": role, "addresses": ["10.0.0.7"], "version": "1", "zone": "eu-central-1a", "boot_epoch": 1,
            "age_ms": 11_100_000, "silent_ms": 1_000, "alive": true, "ready": true,
            "load": {"cpu_permille": 995, "viewers": viewers, "streams": 12},
            "watched": [{"name": "live/a", "viewers": viewers}],
        }))
        .unwrap()
    }

    #[test]
    fn table_of_ec2_nodes_is_aligned_and_fits_into_eighty_columns() {
        let nodes = [record("i-0123456789abcdef0", "origin", 9_999), record("i-1", "edge", 0)].map(|r| node_from(&r));
        let text = nodes_table(&nodes);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
        assert_eq!(lines[0], "NODE                 ROLE    ZONE           STATE   CPU  STRM  VIEW     UP");
        assert_eq!(lines[1], "i-0123456789abcdef0  origin  eu-central-1a  ready  100%    12  9999  3h05m");
        assert_eq!(lines[2], "i-1                  edge    eu-central-1a  ready  100%    12     0  3h05m");
        assert_eq!(nodes_table(&[]).lines().count(), 1);
    }

    #[test]
    fn stream_row_shows_the_origin_and_the_nodes_with_most_viewers() {
        let stream: StreamRecord = serde_json::from_value(json!({
            "name": "live/a", "owner": {"node": "i-9", "epoch": 1}, "epoch": 1, "relay": [], "protocol": "rtmp",
            "started_at_ms": 0, "age_ms": 5_000, "lease_left_ms": 9_000,
        }))
        .unwrap();
        let mut nodes = vec![
            record("i-1", "edge", 2),
            record("i-2", "edge", 7),
            record("i-3", "edge", 1),
            record("i-4", "edge", 90),
        ];
        nodes[3].alive = false;
        let text = streams_table(&join_streams(&[stream], &nodes));
        assert_eq!(text.lines().nth(1).unwrap(), "live/a  i-9     rtmp  5s    10  i-2 7, i-1 2, 1 more");
    }
}
