//! REST: nodes and streams of the cluster. Nodes follow Ant Media's REST v2
//! (`ClusterNode`, `SimpleStat`, `Result`), with additional fields.
//!
//! Only the administrator sees addresses. While the registry is unreachable, responses contain the
//! last known state; the header `Age` is its age in seconds (RFC 9111 §5.1).

use std::collections::BTreeMap;

use axum::extract::{Path, State as Extract};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use headwater_api::config::Role;
use headwater_api::documents::NodeRecord;
use headwater_api::documents::StreamRecord;
use headwater_api::error::{Chain, ErrorBody};
use headwater_api::rest::{ClusterStream, NodeViewers, StreamStatus};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::cluster::{CachedSnapshot, DrainOutcome, RemoveOutcome};
use crate::http::auth::Caller;
use crate::http::error::{Code, Problem};
use crate::http::rest::json::uncached_json;
use crate::http::state::AppState;

/// Routes of nodes and streams.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(nodes))
        .routes(routes!(node_count))
        .routes(routes!(delete_node))
        .routes(routes!(drain_node))
        .routes(routes!(streams))
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNode {
    /// Unique in the cluster; the instance id on EC2.
    pub id: String,
    /// Its first address; empty except for the administrator.
    pub ip: String,
    /// `alive`, or `dead` after 15 seconds without a heartbeat.
    pub status: &'static str,
    /// Time of the last heartbeat: Unix time, in milliseconds.
    pub last_update_time: u64,
    /// CPU use of all cores together, such as `12%`.
    pub cpu: String,
    /// Always empty: not reported.
    pub memory: String,
    /// Always false: there is no master node.
    pub master: bool,
    /// True while it is alive.
    pub in_the_cluster: bool,
    /// `origin`, `edge`, `registry`, `standalone`.
    #[schema(value_type = String)]
    pub role: Role,
    /// The value of the `headwater:node-group` tag.
    pub group: String,
    /// Availability zone; empty outside a cloud.
    pub zone: String,
    /// Machine type; empty outside a cloud.
    pub instance_type: String,
    /// Machine image; empty outside a cloud.
    pub image: String,
    /// Version of the software.
    pub version: String,
    /// True while it drains: it accepts no new clients.
    pub draining: bool,
    /// True once the administrator has requested a drain.
    pub drain_asked: bool,
    /// True if its readiness checks succeed.
    pub ready: bool,
    /// True for the node that sent this response.
    pub answering: bool,
    /// Milliseconds since it registered.
    pub age_ms: u64,
    /// Milliseconds since its last heartbeat.
    pub silent_ms: u64,
    /// CPU use of all cores together, in permille.
    pub cpu_permille: u32,
    /// Streams published to this node.
    pub streams: u32,
    /// Viewers connected to this node.
    pub viewers: u32,
    /// Bits sent in the last full second.
    pub egress_bps: u64,
    /// Egress capacity in bits per second; 0 if unknown.
    pub egress_capacity_bps: u64,
    /// All its addresses, public ones first; absent except for the administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Base URL of its web server; absent except for the administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A count.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub(crate) struct SimpleStat {
    /// The number.
    pub number: usize,
}

/// The result of a successful change.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// Always true; a failure has another status and an error body.
    pub success: bool,
    /// One sentence.
    pub message: String,
    /// Id of the changed node.
    pub data_id: String,
    /// Always 0.
    pub error_id: i32,
}

/// Lists the nodes of the cluster, sorted by id.
#[utoipa::path(get, tag = "cluster", path = "/rest/v2/cluster/nodes/{offset}/{size}",
    params(("offset" = u32, Path, description = "Number of nodes to skip"), ("size" = u32, Path, description = "Maximum number of nodes, up to 500")),
    responses(
        (status = 200, body = [ClusterNode]),
        (status = 400, description = "`bad_request`", body = ErrorBody),
        (status = 401, description = "`wrong_password`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(crate) async fn nodes(
    Extract(state): Extract<AppState>,
    Path(page): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    let (offset, size) = range(&page)?;
    let cached = state.snapshots.get().await;
    let now_ms = state.hub.wall_clock().now_ms();
    let all = cached.snapshot.as_ref().ok_or_else(registry_unreachable)?;
    let nodes = all.nodes.iter().skip(offset).take(size);
    let body: Vec<_> =
        nodes.map(|node| cluster_node(node, now_ms, caller.is_administrator(), &state.node_id)).collect();
    Ok(with_age(uncached_json(body), &cached))
}

/// Counts the nodes of the cluster.
#[utoipa::path(get, tag = "cluster", path = "/rest/v2/cluster/node-count",
    responses(
        (status = 200, body = SimpleStat),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(crate) async fn node_count(Extract(state): Extract<AppState>) -> Result<Response, Problem> {
    let cached = state.snapshots.get().await;
    let number = cached.snapshot.as_ref().ok_or_else(registry_unreachable)?.nodes.len();
    Ok(with_age(uncached_json(SimpleStat { number }), &cached))
}

/// Removes a dead node from the list. Administrator only. A node that is alive cannot be removed:
/// it would reappear with its next heartbeat.
#[utoipa::path(delete, tag = "cluster", path = "/rest/v2/cluster/node/{id}", params(("id" = String, Path, description = "The node")),
    responses(
        (status = 200, body = Outcome),
        (status = 401, description = "`unauthorized`, `wrong_password`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`node_not_found`", body = ErrorBody),
        (status = 409, description = "`node_alive`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(crate) async fn delete_node(
    Extract(state): Extract<AppState>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match state.snapshots.remove(&id).await {
        Ok(RemoveOutcome::Removed) => {
            log::info!(node = id.as_str(); "dead node removed by the administrator");
            Ok(outcome(id, "The node has been removed."))
        }
        Ok(RemoveOutcome::Alive) => Err(Problem::fixed(
            Code::NodeAlive,
            "This node is alive and would reappear within seconds; drain it or terminate its instance instead.",
        )),
        Ok(RemoveOutcome::NotFound) => Err(NODE_NOT_FOUND),
        Err(e) => {
            log::warn!(node = id.as_str(), err:% = Chain(&e); "could not remove a dead node");
            Err(registry_unreachable())
        }
    }
}

/// Requests that an origin or edge drains: it accepts no new clients, its viewers and publishers
/// move to other nodes, and it stops. The node receives the request within six seconds.
/// Administrator only.
#[utoipa::path(post, tag = "cluster", path = "/rest/v2/cluster/node/{id}/drain", params(("id" = String, Path, description = "The node")),
    responses(
        (status = 200, body = Outcome),
        (status = 401, description = "`unauthorized`, `wrong_password`", body = ErrorBody),
        (status = 403, description = "`forbidden`, `cross_origin`", body = ErrorBody),
        (status = 404, description = "`node_not_found`", body = ErrorBody),
        (status = 409, description = "`not_drainable`", body = ErrorBody),
        (status = 503, description = "`registry_unreachable`", body = ErrorBody),
    ))]
pub(crate) async fn drain_node(Extract(state): Extract<AppState>, Path(id): Path<String>) -> Result<Response, Problem> {
    match state.snapshots.drain(&id).await {
        Ok(DrainOutcome::Requested) => {
            log::info!(node = id.as_str(); "drain of a node requested by the administrator");
            Ok(outcome(id, "The node will drain."))
        }
        Ok(DrainOutcome::Dead) => {
            Err(Problem::fixed(Code::NotDrainable, "This node is dead and cannot receive the request."))
        }
        Ok(DrainOutcome::NotSupported(Role::Registry)) => Err(Problem::fixed(
            Code::NotDrainable,
            "A registry node hands over when its instance is terminated; terminate the instance instead.",
        )),
        Ok(DrainOutcome::NotSupported(_)) => Err(Problem::fixed(
            Code::NotDrainable,
            "This node is not in a cluster, so no other node can take over; stop its service instead.",
        )),
        Ok(DrainOutcome::NotFound) => Err(NODE_NOT_FOUND),
        Err(e) => {
            log::warn!(node = id.as_str(), err:% = Chain(&e); "could not request the drain of a node");
            Err(registry_unreachable())
        }
    }
}

fn outcome(id: String, message: &str) -> Response {
    uncached_json(Outcome { success: true, message: message.to_owned(), data_id: id, error_id: 0 })
}

/// Lists the live streams of the cluster, sorted by name, with the origin node of each and its
/// viewers by node.
#[utoipa::path(get, tag = "cluster", path = "/rest/v2/cluster/streams/{offset}/{size}",
    params(("offset" = u32, Path, description = "Number of streams to skip"), ("size" = u32, Path, description = "Maximum number of streams, up to 500")),
    responses(
        (status = 200, body = [ClusterStream]),
        (status = 400, description = "`bad_request`", body = ErrorBody),
    ))]
pub(crate) async fn streams(
    Extract(state): Extract<AppState>,
    Path(page): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (offset, size) = range(&page)?;
    let cached = state.snapshots.get().await;
    let here: Vec<_> = state.hub.streams().iter().map(|stream| stream.status()).collect();
    let (nodes, claimed) = cached.snapshot.as_ref().map_or((&[][..], &[][..]), |c| (&c.nodes[..], &c.streams[..]));
    let all = merge_streams(&state.node_id, &here, claimed, nodes, state.hub.wall_clock().now_ms());
    Ok(with_age(uncached_json(all.into_iter().skip(offset).take(size).collect::<Vec<_>>()), &cached))
}

/// Merges the streams that nodes have claimed in the registry with the streams published here that
/// are not claimed yet.
fn merge_streams(
    this_node: &str,
    here: &[StreamStatus],
    claimed: &[StreamRecord],
    nodes: &[NodeRecord],
    now_ms: u64,
) -> Vec<ClusterStream> {
    let mut viewers: BTreeMap<&str, Vec<NodeViewers>> = BTreeMap::new();
    // The counters of this node are more recent than its last heartbeat.
    let other_nodes = nodes.iter().filter(|n| n.alive && n.node.id != this_node);
    let watched = other_nodes
        .flat_map(|n| n.heartbeat.watched.iter().map(|w| (w.name.as_str(), n.node.id.as_str(), w.viewers.into())));
    let counted = here.iter().map(|s| (s.name.as_str(), this_node, s.viewers.webrtc + s.viewers.hls + s.viewers.rtmp));
    for (name, node, count) in watched.chain(counted) {
        if count > 0 {
            viewers.entry(name).or_default().push(NodeViewers { node: node.to_owned(), viewers: count });
        }
    }
    let mut all: BTreeMap<&str, ClusterStream> = BTreeMap::new();
    let mut add = |name, origin: &str, protocol: &str, age_ms| {
        let stream = ClusterStream {
            name: str::to_owned(name),
            origin: origin.to_owned(),
            protocol: protocol.to_owned(),
            age_ms,
            viewers: 0,
            viewers_by_node: Vec::new(),
        };
        all.entry(name).or_insert(stream);
    };
    for record in claimed {
        add(record.claim.name.as_str(), &record.claim.owner.node, &record.offer.protocol, record.age_ms);
    }
    // A stream that is only relayed here appears as soon as its claim is known.
    for status in here.iter().filter(|status| status.protocol != RELAY_PROTOCOL) {
        add(status.name.as_str(), this_node, &status.protocol, now_ms.saturating_sub(status.started_at_ms));
    }
    let mut all: Vec<_> = all.into_values().collect();
    for stream in &mut all {
        stream.viewers_by_node = viewers.remove(stream.name.as_str()).unwrap_or_default();
        stream.viewers_by_node.sort_by(|a, b| b.viewers.cmp(&a.viewers).then_with(|| a.node.cmp(&b.node)));
        stream.viewers = stream.viewers_by_node.iter().map(|n| n.viewers).sum();
    }
    all
}

fn cluster_node(record: &NodeRecord, now_ms: u64, to_administrator: bool, this_node: &str) -> ClusterNode {
    let NodeRecord { node, heartbeat, .. } = record;
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    ClusterNode {
        id: node.id.clone(),
        ip: addresses.first().filter(|_| to_administrator).cloned().unwrap_or_default(),
        status: if record.alive { "alive" } else { "dead" },
        last_update_time: now_ms.saturating_sub(record.silent_ms),
        cpu: format!("{}%", heartbeat.load.cpu_permille.div_ceil(10)),
        memory: String::new(),
        master: false,
        in_the_cluster: record.alive,
        role: node.role,
        group: node.group.clone(),
        zone: node.zone.clone(),
        instance_type: node.instance_type.clone(),
        image: node.image.clone(),
        version: node.version.clone(),
        draining: heartbeat.draining,
        drain_asked: record.drain_requested,
        ready: heartbeat.ready,
        answering: node.id == this_node,
        age_ms: record.age_ms,
        silent_ms: record.silent_ms,
        cpu_permille: heartbeat.load.cpu_permille,
        streams: heartbeat.load.streams,
        viewers: heartbeat.load.viewers,
        egress_bps: heartbeat.load.egress_bps,
        egress_capacity_bps: heartbeat.load.egress_capacity_bps,
        addresses: to_administrator.then_some(addresses),
        url: node.url.clone().filter(|_| to_administrator),
    }
}

/// Parses offset and size; a size above the limit is reduced to the limit.
fn range((offset, size): &(String, String)) -> Result<(usize, usize), Problem> {
    let number = |text: &str| text.parse::<u32>().ok().and_then(|n| usize::try_from(n).ok());
    match (number(offset), number(size)) {
        (Some(offset), Some(size)) => Ok((offset, size.min(MAX_SIZE))),
        _ => Err(Problem::fixed(Code::BadRequest, "Offset and size must be whole numbers.")),
    }
}

fn registry_unreachable() -> Problem {
    Problem::fixed(Code::RegistryUnreachable, "The registry does not answer.")
}

fn with_age(mut response: Response, cached: &CachedSnapshot) -> Response {
    response.headers_mut().insert(header::AGE, HeaderValue::from(cached.age.as_secs()));
    response
}

const NODE_NOT_FOUND: Problem = Problem::fixed(Code::NodeNotFound, "There is no node of this id.");
/// Maximum number of entries in a response.
const MAX_SIZE: usize = 500;
/// The protocol in the status of a stream that is relayed from another node.
const RELAY_PROTOCOL: &str = "relay";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, viewers: u32) -> NodeRecord {
        serde_json::from_value(json!({
            "id": id, "role": "edge", "addresses": ["203.0.113.7", "10.0.0.7"], "url": "http://203.0.113.7:5080", "version": "1",
            "zone": "eu-central-1a", "boot_epoch": 1, "age_ms": 60_000, "silent_ms": 1_000, "alive": true,
            "load": {"cpu_permille": 123, "viewers": viewers}, "ready": true,
            "watched": [{"name": "live/a", "viewers": viewers}],
        }))
        .unwrap()
    }

    fn status(name: &str, protocol: &str, rtmp: u64) -> StreamStatus {
        serde_json::from_value(json!({
            "name": name, "started_at_ms": 1_000, "protocol": protocol, "video": null, "audio": null, "received_bytes": 0,
            "bitrate_bps": 0, "viewers": {"webrtc": 0, "hls": 0, "rtmp": rtmp}, "notices": [],
        }))
        .unwrap()
    }

    fn claimed(name: &str, owner: &str) -> StreamRecord {
        serde_json::from_value(json!({
            "name": name, "owner": {"node": owner, "epoch": 1}, "epoch": 1, "relay": [], "protocol": "rtmp", "started_at_ms": 0,
            "age_ms": 5_000, "lease_left_ms": 9_000,
        }))
        .unwrap()
    }

    #[test]
    fn only_the_administrator_sees_addresses() {
        let record = node("i-1", 3);
        let public = serde_json::to_string(&cluster_node(&record, 10_000, false, "i-2")).unwrap();
        assert!(!public.contains("203.0.113") && !public.contains("10.0.0"), "{public}");
        let administrator = serde_json::to_value(cluster_node(&record, 10_000, true, "i-1")).unwrap();
        let expected = json!({
            "id": "i-1", "ip": "203.0.113.7", "status": "alive", "lastUpdateTime": 9_000, "cpu": "13%", "memory": "",
            "master": false, "inTheCluster": true,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&administrator[key], value, "{key}");
        }
        assert_eq!(administrator["addresses"], json!(["203.0.113.7", "10.0.0.7"]));
        assert_eq!(administrator["answering"], true);
    }

    #[test]
    fn merged_streams_have_one_origin_and_the_viewers_of_all_nodes() {
        let mut dead = node("i-dead", 100);
        dead.alive = false;
        // The last heartbeat of this node has 7 viewers; it counts 2 now.
        let nodes = [node("i-1", 7), node("i-2", 5), dead];
        let here =
            [status("live/a", RELAY_PROTOCOL, 2), status("live/b", "rtmp", 0), status("live/c", RELAY_PROTOCOL, 1)];
        let all = merge_streams("i-1", &here, &[claimed("live/a", "i-9")], &nodes, 4_000);
        let names: Vec<_> = all.iter().map(|s| (s.name.as_str(), s.origin.as_str(), s.viewers, s.age_ms)).collect();
        assert_eq!(names, [("live/a", "i-9", 7, 5_000), ("live/b", "i-1", 0, 3_000)]);
        let by_node: Vec<_> = all[0].viewers_by_node.iter().map(|n| (n.node.as_str(), n.viewers)).collect();
        assert_eq!(by_node, [("i-2", 5), ("i-1", 2)]);
    }

    #[test]
    fn offset_and_size_must_be_numbers_and_size_is_limited() {
        let check = |offset: &str, size: &str, expected: Option<(usize, usize)>| {
            assert_eq!(range(&(offset.to_owned(), size.to_owned())).ok(), expected, "{offset}/{size}");
        };
        check("0", "50", Some((0, 50)));
        check("4294967295", "4294967295", Some((4_294_967_295, 500)));
        for (offset, size) in [("-1", "1"), ("0", "x"), ("", ""), ("0", "4294967296"), ("1.5", "1")] {
            check(offset, size, None);
        }
    }
}
