//! Nodes: leases, and the order of incarnations.

use headwater_api::config::Role;
use headwater_api::documents::{
    BootEpoch, Heartbeat, Load, MAX_WATCHED, NodeDocument, NodeIncarnation, StreamViewers, ViewerCounts,
};

use super::{TIMING, name, node, register, until};
use crate::{DesiredState, Peers, Registry, RegistryError};

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    node_is_listed_with_its_document_and_heartbeat(registry).await;
    peers_are_selected_nodes_without_stream_viewers(registry).await;
    later_incarnation_supersedes_an_earlier_one(registry).await;
    earlier_incarnation_cannot_register_again(registry).await;
    concurrent_registrations_of_one_id_get_different_epochs(registry).await;
    same_incarnation_may_register_again(registry).await;
    removed_node_must_register_again(registry).await;
    only_the_current_incarnation_can_deregister(registry).await;
    drain_request_applies_to_one_incarnation(registry).await;
    silent_node_dies_and_a_heartbeat_revives_it(registry).await;
    for node in registry.nodes().await.unwrap() {
        registry.remove_node(&node.node.id).await.unwrap();
    }
}

async fn node_is_listed_with_its_document_and_heartbeat(registry: &impl Registry) {
    let b = register(registry, "b").await;
    let a = register(registry, "a").await;
    let listed = registry.nodes().await.unwrap();
    assert_eq!(listed.iter().map(|n| n.incarnation()).collect::<Vec<_>>(), [a.clone(), b]);
    assert_eq!((&listed[0].node, &listed[0].heartbeat, listed[0].alive), (&node("a"), &Heartbeat::default(), true));

    registry.heartbeat(&a, &busy_heartbeat()).await.unwrap();
    let record = registry.node("a").await.unwrap().unwrap();
    let (load, draining) = (record.heartbeat.load, record.heartbeat.draining);
    assert_eq!((load, draining, record.alive), (busy_heartbeat().load, true, true));
    assert_eq!(record.heartbeat.watched, busy_heartbeat().watched[..MAX_WATCHED]);
    assert!(record.silent_ms <= record.age_ms && record.age_ms < 60_000, "{record:?}");
    assert_eq!(registry.node("c").await.unwrap(), None);
}

async fn peers_are_selected_nodes_without_stream_viewers(registry: &impl Registry) {
    let a = register(registry, "a").await;
    register(registry, "b").await;
    for (id, role, group) in
        [("east-1", Role::Edge, "east"), ("east-2", Role::Origin, "east"), ("west", Role::Edge, "west")]
    {
        registry.register(&NodeDocument { role, group: group.to_owned(), ..node(id) }, None).await.unwrap();
    }
    registry.heartbeat(&a, &busy_heartbeat()).await.unwrap();
    let ids = ["west", "a", "unknown"].map(str::to_owned);
    let found = registry.peers(Peers::ById(&ids)).await.unwrap();
    assert_eq!(found.iter().map(|n| n.node.id.as_str()).collect::<Vec<_>>(), ["a", "west"]);
    assert_eq!((&found[0].node, found[0].alive), (&node("a"), true));
    assert_eq!(found[0].heartbeat, Heartbeat { watched: Vec::new(), ..busy_heartbeat() });
    let edges = registry.peers(Peers::EdgesOf("east")).await.unwrap();
    assert_eq!(edges.iter().map(|n| n.node.id.as_str()).collect::<Vec<_>>(), ["east-1"]);
    assert_eq!(registry.peers(Peers::ById(&[])).await.unwrap(), []);
    let watched = &busy_heartbeat().watched[1].name;
    let watching = registry.peers(Peers::Watching(watched)).await.unwrap();
    assert_eq!(watching.iter().map(|n| n.node.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(watching[0].heartbeat.watched, []);
    assert_eq!(registry.peers(Peers::Watching(&name("live/unwatched"))).await.unwrap(), []);
}

async fn later_incarnation_supersedes_an_earlier_one(registry: &impl Registry) {
    let first = register(registry, "a").await;
    let upgraded = NodeDocument { version: "1.2.4".to_owned(), ..node("a") };
    let second = registry.register(&upgraded, None).await.unwrap();
    assert!(second.epoch > first.epoch, "{second:?} {first:?}");
    let error = registry.heartbeat(&first, &busy_heartbeat()).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Superseded { id, this, registered } if id == "a" && *this == first.epoch && *registered == second.epoch),
        "{error:?}"
    );
    assert!(!error.is_retryable());
    let record = registry.node("a").await.unwrap().unwrap();
    assert_eq!((record.incarnation(), record.node, record.heartbeat), (second, upgraded, Heartbeat::default()));
}

async fn earlier_incarnation_cannot_register_again(registry: &impl Registry) {
    let first = register(registry, "a").await;
    let second = register(registry, "a").await;
    let error = registry.register(&node("a"), Some(first.epoch)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Superseded { .. }), "{error:?}");
    assert!(!registry.deregister(&first).await.unwrap());
    assert_eq!(registry.node("a").await.unwrap().unwrap().incarnation(), second);
}

async fn concurrent_registrations_of_one_id_get_different_epochs<R: Registry + Clone + 'static>(registry: &R) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move { registry.register(&node("twin"), None).await.unwrap().epoch });
    }
    let mut epochs = tasks.join_all().await;
    epochs.sort_unstable();
    let latest = epochs[7];
    epochs.dedup();
    assert_eq!(epochs.len(), 8, "two incarnations got the same epoch");
    for epoch in epochs {
        let incarnation = NodeIncarnation { node: "twin".to_owned(), epoch };
        let outcome = registry.heartbeat(&incarnation, &Heartbeat::default()).await;
        assert_eq!(outcome.is_ok(), epoch == latest, "{epoch} of {latest}: {outcome:?}");
    }
}

async fn same_incarnation_may_register_again(registry: &impl Registry) {
    let incarnation = register(registry, "a").await;
    registry.heartbeat(&incarnation, &busy_heartbeat()).await.unwrap();
    let again = NodeDocument { url: None, ..node("a") };
    assert_eq!(registry.register(&again, Some(incarnation.epoch)).await.unwrap(), incarnation);
    let record = registry.node("a").await.unwrap().unwrap();
    assert_eq!((record.node, record.heartbeat.load), (again, busy_heartbeat().load), "the heartbeat is lost");
}

async fn removed_node_must_register_again(registry: &impl Registry) {
    let incarnation = register(registry, "a").await;
    assert!(registry.remove_node("a").await.unwrap());
    assert!(!registry.remove_node("a").await.unwrap());
    assert_eq!(registry.node("a").await.unwrap(), None);
    let error = registry.heartbeat(&incarnation, &busy_heartbeat()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::NotRegistered { id } if id == "a"), "{error:?}");
    assert_eq!(registry.node("a").await.unwrap(), None, "a heartbeat alone created a document");
    assert_eq!(registry.register(&node("a"), Some(incarnation.epoch)).await.unwrap(), incarnation);
    registry.heartbeat(&incarnation, &busy_heartbeat()).await.unwrap();
}

async fn only_the_current_incarnation_can_deregister(registry: &impl Registry) {
    let current = register(registry, "a").await;
    let earlier = NodeIncarnation { epoch: BootEpoch(current.epoch.0 - 1), ..current.clone() };
    assert!(!registry.deregister(&earlier).await.unwrap());
    assert!(registry.deregister(&current).await.unwrap());
    assert!(!registry.deregister(&current).await.unwrap());
    let next = register(registry, "a").await;
    assert!(next.epoch > current.epoch, "the epoch did not grow: {next:?} after {current:?}");
}

async fn drain_request_applies_to_one_incarnation(registry: &impl Registry) {
    let first = register(registry, "a").await;
    assert_eq!(registry.heartbeat(&first, &busy_heartbeat()).await.unwrap(), DesiredState::Serve);
    assert!(registry.request_drain(&first).await.unwrap());
    // The request survives that the node writes its document again.
    registry.register(&NodeDocument { url: None, ..node("a") }, Some(first.epoch)).await.unwrap();
    assert!(registry.node("a").await.unwrap().unwrap().drain_requested);
    for _ in 0..2 {
        assert_eq!(registry.heartbeat(&first, &busy_heartbeat()).await.unwrap(), DesiredState::Drain);
    }
    let second = register(registry, "a").await;
    assert!(!registry.request_drain(&first).await.unwrap(), "an earlier incarnation was found");
    assert_eq!(registry.heartbeat(&second, &busy_heartbeat()).await.unwrap(), DesiredState::Serve);
    assert!(!registry.node("a").await.unwrap().unwrap().drain_requested);
    registry.deregister(&second).await.unwrap();
    assert!(!registry.request_drain(&second).await.unwrap(), "a deregistered node was found");
}

async fn silent_node_dies_and_a_heartbeat_revives_it(registry: &impl Registry) {
    let incarnation = register(registry, "a").await;
    let dead =
        until("death of a silent node", async || registry.node("a").await.unwrap().filter(|record| !record.alive));
    let dead = dead.await;
    assert!(u128::from(dead.silent_ms) >= TIMING.lease.as_millis(), "died before its lease expired: {dead:?}");
    registry.heartbeat(&incarnation, &Heartbeat::default()).await.unwrap();
    assert!(registry.node("a").await.unwrap().unwrap().alive);
}

pub(super) async fn dead_node_expires(registry: &impl Registry) {
    let incarnation = register(registry, "brief").await;
    until("expiry", async || registry.node("brief").await.unwrap().is_none().then_some(())).await;
    assert!(registry.nodes().await.unwrap().iter().all(|n| n.node.id != "brief"));
    // On a busy machine the next incarnation may expire, too, before the old one registers again.
    let error = until("refusal of the old incarnation", async || {
        let next = register(registry, "brief").await;
        assert!(next.epoch > incarnation.epoch, "{next:?} after {incarnation:?}");
        registry.register(&node("brief"), Some(incarnation.epoch)).await.err()
    });
    let error = error.await;
    assert!(matches!(error, RegistryError::Superseded { .. }), "{error:?}");
}

/// A heartbeat with every field set, and one stream more than the registry keeps.
fn busy_heartbeat() -> Heartbeat {
    let watched =
        (0..MAX_WATCHED + 1).map(|n| StreamViewers { name: name(&format!("live/{n}")), viewers: 3 }).collect();
    let load = Load {
        cpu_permille: 512,
        streams: 2,
        viewers: 1_500,
        viewers_by: ViewerCounts { webrtc: 1_000, hls: 400, rtmp: 100 },
        egress_bps: 40_000_000_000,
        egress_capacity_bps: 50_000_000_000,
    };
    Heartbeat { load, draining: true, ready: true, watched }
}
