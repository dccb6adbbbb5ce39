//! Nodes: a lease, and lives that follow each other.

use headwater_api::config::Role;
use headwater_api::node::{BootEpoch, Heartbeat, Life, Load, MAX_WATCHED, NodeDocument, Watched};
use headwater_api::status::ViewerCounts;

use super::{TIMING, name, node, register, until};
use crate::{Peers, Registry, RegistryError, Wish};

pub(super) async fn check<R: Registry + Clone + 'static>(registry: &R) {
    a_node_is_listed_with_what_it_said(registry).await;
    peers_are_some_nodes_without_what_is_watched_there(registry).await;
    a_later_life_replaces_an_earlier_one_which_is_told(registry).await;
    an_earlier_life_cannot_come_back(registry).await;
    of_many_who_register_one_id_each_is_a_life_of_its_own(registry).await;
    the_same_life_may_register_again(registry).await;
    a_node_that_was_removed_is_asked_to_register(registry).await;
    only_the_life_itself_leaves(registry).await;
    one_life_of_a_node_is_asked_to_drain(registry).await;
    a_silent_node_dies_and_a_heartbeat_revives_it(registry).await;
    for node in registry.nodes().await.unwrap() {
        registry.remove_node(&node.node.id).await.unwrap();
    }
}

async fn a_node_is_listed_with_what_it_said(registry: &impl Registry) {
    let b = register(registry, "b").await;
    let a = register(registry, "a").await;
    let listed = registry.nodes().await.unwrap();
    assert_eq!(listed.iter().map(|n| n.life()).collect::<Vec<_>>(), [a.clone(), b]);
    assert_eq!((&listed[0].node, &listed[0].heartbeat, listed[0].alive), (&node("a"), &Heartbeat::default(), true));

    registry.heartbeat(&a, &busy()).await.unwrap();
    let record = registry.node("a").await.unwrap().unwrap();
    assert_eq!((record.heartbeat.load, record.heartbeat.draining, record.alive), (busy().load, true, true));
    assert_eq!(record.heartbeat.watched, busy().watched[..MAX_WATCHED]);
    assert!(record.silent_ms <= record.age_ms && record.age_ms < 60_000, "{record:?}");
    assert_eq!(registry.node("c").await.unwrap(), None);
}

async fn peers_are_some_nodes_without_what_is_watched_there(registry: &impl Registry) {
    let a = register(registry, "a").await;
    register(registry, "b").await;
    for (id, role, group) in
        [("east-1", Role::Edge, "east"), ("east-2", Role::Origin, "east"), ("west", Role::Edge, "west")]
    {
        registry.register(&NodeDocument { role, group: group.to_owned(), ..node(id) }, None).await.unwrap();
    }
    registry.heartbeat(&a, &busy()).await.unwrap();
    let ids = ["west", "a", "nobody"].map(str::to_owned);
    let found = registry.peers(Peers::These(&ids)).await.unwrap();
    assert_eq!(found.iter().map(|n| n.node.id.as_str()).collect::<Vec<_>>(), ["a", "west"]);
    assert_eq!((&found[0].node, found[0].alive), (&node("a"), true));
    assert_eq!(found[0].heartbeat, Heartbeat { watched: Vec::new(), ..busy() });
    let edges = registry.peers(Peers::EdgesOf("east")).await.unwrap();
    assert_eq!(edges.iter().map(|n| n.node.id.as_str()).collect::<Vec<_>>(), ["east-1"]);
    assert_eq!(registry.peers(Peers::These(&[])).await.unwrap(), []);
}

async fn a_later_life_replaces_an_earlier_one_which_is_told(registry: &impl Registry) {
    let first = register(registry, "a").await;
    let moved = NodeDocument { version: "1.2.4".to_owned(), ..node("a") };
    let second = registry.register(&moved, None).await.unwrap();
    assert!(second.epoch > first.epoch, "{second:?} {first:?}");
    let error = registry.heartbeat(&first, &busy()).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Superseded { id, this, registered } if id == "a" && *this == first.epoch && *registered == second.epoch),
        "{error:?}"
    );
    assert!(!error.is_retryable());
    let record = registry.node("a").await.unwrap().unwrap();
    assert_eq!((record.life(), record.node, record.heartbeat), (second, moved, Heartbeat::default()));
}

async fn an_earlier_life_cannot_come_back(registry: &impl Registry) {
    let first = register(registry, "a").await;
    let second = register(registry, "a").await;
    let error = registry.register(&node("a"), Some(first.epoch)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Superseded { .. }), "{error:?}");
    assert!(!registry.leave(&first).await.unwrap());
    assert_eq!(registry.node("a").await.unwrap().unwrap().life(), second);
}

async fn of_many_who_register_one_id_each_is_a_life_of_its_own<R: Registry + Clone + 'static>(registry: &R) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move { registry.register(&node("twin"), None).await.unwrap().epoch });
    }
    let mut epochs = tasks.join_all().await;
    epochs.sort_unstable();
    let latest = epochs[7];
    epochs.dedup();
    assert_eq!(epochs.len(), 8, "two lives were given the same epoch");
    for epoch in epochs {
        let outcome = registry.heartbeat(&Life { node: "twin".to_owned(), epoch }, &Heartbeat::default()).await;
        assert_eq!(outcome.is_ok(), epoch == latest, "{epoch} of {latest}: {outcome:?}");
    }
}

async fn the_same_life_may_register_again(registry: &impl Registry) {
    let life = register(registry, "a").await;
    registry.heartbeat(&life, &busy()).await.unwrap();
    let again = NodeDocument { url: None, ..node("a") };
    assert_eq!(registry.register(&again, Some(life.epoch)).await.unwrap(), life);
    let record = registry.node("a").await.unwrap().unwrap();
    assert_eq!((record.node, record.heartbeat.load), (again, busy().load), "what it said with its heartbeat is lost");
}

async fn a_node_that_was_removed_is_asked_to_register(registry: &impl Registry) {
    let life = register(registry, "a").await;
    assert!(registry.remove_node("a").await.unwrap());
    assert!(!registry.remove_node("a").await.unwrap());
    assert_eq!(registry.node("a").await.unwrap(), None);
    let error = registry.heartbeat(&life, &busy()).await.unwrap_err();
    assert!(matches!(&error, RegistryError::NotRegistered { id } if id == "a"), "{error:?}");
    assert_eq!(registry.node("a").await.unwrap(), None, "a heartbeat alone made a document");
    assert_eq!(registry.register(&node("a"), Some(life.epoch)).await.unwrap(), life);
    registry.heartbeat(&life, &busy()).await.unwrap();
}

async fn only_the_life_itself_leaves(registry: &impl Registry) {
    let life = register(registry, "a").await;
    assert!(!registry.leave(&Life { epoch: BootEpoch(life.epoch.0 - 1), ..life.clone() }).await.unwrap());
    assert!(registry.leave(&life).await.unwrap());
    assert!(!registry.leave(&life).await.unwrap());
    let next = register(registry, "a").await;
    assert!(next.epoch > life.epoch, "an epoch came back: {next:?} after {life:?}");
}

async fn one_life_of_a_node_is_asked_to_drain(registry: &impl Registry) {
    let first = register(registry, "a").await;
    assert_eq!(registry.heartbeat(&first, &busy()).await.unwrap(), Wish::Serve);
    assert!(registry.ask_to_drain(&first).await.unwrap());
    // Whatever it says meanwhile.
    registry.register(&NodeDocument { url: None, ..node("a") }, Some(first.epoch)).await.unwrap();
    assert!(registry.node("a").await.unwrap().unwrap().drain_asked);
    for _ in 0..2 {
        assert_eq!(registry.heartbeat(&first, &busy()).await.unwrap(), Wish::Drain);
    }
    let second = register(registry, "a").await;
    assert!(!registry.ask_to_drain(&first).await.unwrap(), "an earlier life was found");
    assert_eq!(registry.heartbeat(&second, &busy()).await.unwrap(), Wish::Serve);
    assert!(!registry.node("a").await.unwrap().unwrap().drain_asked);
    registry.leave(&second).await.unwrap();
    assert!(!registry.ask_to_drain(&second).await.unwrap(), "a node that has left was found");
}

async fn a_silent_node_dies_and_a_heartbeat_revives_it(registry: &impl Registry) {
    let life = register(registry, "a").await;
    let dead =
        until("death of a silent node", async || registry.node("a").await.unwrap().filter(|record| !record.alive));
    let dead = dead.await;
    assert!(u128::from(dead.silent_ms) >= TIMING.lease.as_millis(), "died before its lease ended: {dead:?}");
    registry.heartbeat(&life, &Heartbeat::default()).await.unwrap();
    assert!(registry.node("a").await.unwrap().unwrap().alive);
}

pub(super) async fn a_dead_node_is_forgotten(registry: &impl Registry) {
    let life = register(registry, "brief").await;
    until("oblivion", async || registry.node("brief").await.unwrap().is_none().then_some(())).await;
    assert!(registry.nodes().await.unwrap().iter().all(|n| n.node.id != "brief"));
    // On a busy machine the next life, too, may be forgotten before the old one speaks.
    let error = until("refusal of the old life", async || {
        let next = register(registry, "brief").await;
        assert!(next.epoch > life.epoch, "{next:?} after {life:?}");
        registry.register(&node("brief"), Some(life.epoch)).await.err()
    });
    let error = error.await;
    assert!(matches!(error, RegistryError::Superseded { .. }), "{error:?}");
}

fn busy() -> Heartbeat {
    let watched = (0..MAX_WATCHED + 1).map(|n| Watched { name: name(&format!("live/{n}")), viewers: 3 }).collect();
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
